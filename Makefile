# The two commands of the README, and what CI runs. Everything lives in .venv; nothing else on the machine changes.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test install lint docs examples clean

demo: install
	$(BIN)/pluralign run configs/quickstart.yaml

test: install .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

install: .venv/.installed

# torch comes first and alone: a machine that offers a CPU build of the pinned version then keeps it.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "pluralign needs Python 3.11 to 3.13, this is %d.%d; say which with: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "Installing into .venv (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

# pref_voting asks for older versions of numba (hence numpy) and filelock than what was tested here; it runs with these.
.venv/.dev: .venv/.installed
	@$(PIP) --editable '.[dev]'
	@$(PIP) --no-deps pref_voting
	@touch $@

.venv/.docs: .venv/.dev
	@$(PIP) --editable '.[docs]'
	@touch $@

lint: install .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: install .venv/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

examples: install
	@for script in examples/*.py; do echo "$$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv runs docs/_build
