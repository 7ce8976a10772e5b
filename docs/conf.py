"""How the documentation site is built: `make docs`, or `python -m sphinx docs build/docs`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

from pplr_lightning import __version__

sys.path.insert(0, str(Path(__file__).parent))  # for `extensions`

project = "pplr-lightning"
release = version = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "extensions.mathml",
    "extensions.options",
]
exclude_patterns = ["extensions", "**/__pycache__"]
default_role = "py:obj"  # `name` in a docstring: a link where there is something to link to
suppress_warnings = ["config.cache"]

# Pages
myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4
math_number_all = False

# Docstrings
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Look: nothing is loaded from elsewhere, so that the site also works from a folder.
html_theme = "furo"
html_title = "pplr-lightning"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_permalinks_icon = "#"
copybutton_prompt_text = "$ "
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0b6e6e",
        "color-brand-content": "#0b6e6e",
        "color-brand-visited": "#0b6e6e",
        "color-api-name": "#0b6e6e",
        "color-api-pre-name": "var(--color-foreground-muted)",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5ec9c3",
        "color-brand-content": "#5ec9c3",
        "color-brand-visited": "#5ec9c3",
        "color-api-name": "#5ec9c3",
        "color-api-pre-name": "var(--color-foreground-muted)",
    },
}


def skip_fields(app: Sphinx, what: str, name: str, member: Any, skip: bool, *_: Any) -> bool | None:
    """Leaves out what Python says of a named tuple's fields; their class describes them."""
    return True if (getattr(member, "__doc__", "") or "").startswith("Alias for field") else None


def own_signature(
    app: Sphinx, what: str, name: str, member: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Takes a class's constructor where a base with a `__new__` of its own would hide it."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    found = inspect.signature(member).replace(return_annotation=inspect.Signature.empty)
    return stringify_signature(found, unqualified_typehints=True), returns


def setup(app: Sphinx) -> None:
    """Connects the above."""
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", own_signature)
