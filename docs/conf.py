"""Sphinx's settings: make docs writes HTML to docs/_build. Nothing is fetched while it builds."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

from genre_classifier import __version__  # noqa: E402 - the path above leads to it

# Sphinx reads only what is below docs/.
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)

project = "genre-classifier"
author = copyright = "the genre-classifier authors"
version = release = __version__

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "reference"]
exclude_patterns = ["_build", "_ext", "jupyter_execute"]
nitpicky = True
# Names of other projects cannot be looked up without network; our own must resolve.
nitpick_ignore_regex = [(r"py:.*", r"(?!genre_classifier\.).*")]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

nb_execution_timeout = 120  # seconds per cell
nb_merge_streams = True  # what a loop prints is one block
nb_execution_raise_on_error = True

autodoc_typehints = "none"  # numpydoc's sections say them
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = f"genre-classifier {__version__}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False
