"""Sphinx configuration. Warnings are errors: `make docs`."""

import pluralign

project = "pluralign"
author = "The pluralign developers"
copyright = "2026, the pluralign developers"
release = pluralign.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "jupyter_execute"]

html_theme = "furo"
html_title = "pluralign"
html_static_path = []

bibtex_bibfiles = ["papers.bib"]
bibtex_reference_style = "author_year"

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
nb_execution_mode = "cache"
# Its data are not in the repository; tests run it again where they are.
nb_execution_excludepatterns = ["choosing.ipynb"]
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Shapes such as Float[ndarray, "draw voter"] read better than the objects they stand for.
autodoc_preserve_defaults = True
napoleon_use_ivar = True
suppress_warnings = ["mystnb.unknown_mime_type"]
