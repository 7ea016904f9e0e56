"""Sphinx settings: MyST pages, numpydoc docstrings, furo.  Build: python -m sphinx -W -b html docs docs/_build/html"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tal_postproc

project = "tal_postproc"
author = "the tal_postproc authors"
release = version = tal_postproc.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build", "tutorials/tables"]
html_theme = "furo"
html_title = f"tal_postproc {version}"
html_show_sourcelink = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

default_role = "py:obj"  # `nms` in a docstring is a link where there is something to link to
autosummary_generate = False
autodoc_mock_imports = [name for name in ("torch", "triton") if find_spec(name) is None]
autodoc_member_order = "bysource"
suppress_warnings = ["ref.python"]  # fields say `Segments`, of which there are two: arrays and tensors
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "NDArray": "NDArray", "Float": "Float", "Int": "Int"}
python_maximum_signature_line_length = 90
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

_CONVENTIONS = re.compile(r"(``)?docs/conventions\.md(``)?")
_FORWARD = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")


def link_conventions(app, what, name, obj, options, lines):
    """Docstrings name docs/conventions.md, for those who read the source; here it is a link."""
    lines[:] = [_CONVENTIONS.sub(":doc:`docs/conventions.md </conventions>`", line) for line in lines]


def name_aliases(app, what, name, obj, options, signature, returns):
    """Type aliases by their name: autodoc writes TypeAliasForwardRef('ArrayLike') inside unions."""
    return tuple(text and _FORWARD.sub(r"\1", text) for text in (signature, returns))


def setup(app):
    app.connect("autodoc-process-docstring", link_conventions, priority=900)
    app.connect("autodoc-process-signature", name_aliases)
