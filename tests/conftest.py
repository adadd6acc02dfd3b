import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads anything
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _folder(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: it names a folder of real data or models that is not in this repository")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def real_data() -> Path:
    return _folder("PLURALIGN_DATA")


@pytest.fixture(scope="session")
def real_models() -> Path:
    return _folder("PLURALIGN_MODELS")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Nothing is read from or left in the home directory of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
