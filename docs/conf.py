"""Sphinx: `make docs` builds docs/_build/html from the Markdown here and the docstrings.

Formulas become MathML while building, so the pages are read without a network and without
JavaScript, and a formula that does not parse fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

import ddpm_pipeline

if TYPE_CHECKING:
    from docutils.nodes import math, math_block
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "ddpm_pipeline"
release = ddpm_pipeline.__version__
project_copyright = "the ddpm_pipeline authors, Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links that leave docs/ work on the repository's site
exclude_patterns = ["_build"]
language = "en"

# The notebooks run while building, in folders of their own; one that is as it was is not run again
# until `make clean`.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]

html_theme = "furo"
html_title = f"{project} {release}"
html_math_renderer = "mathml"
html_show_sphinx = False


# What the converter does not know. MathML's fences stretch without \big.
REWRITES = (
    (r"\{aligned\}", "{align*}"),
    (r"\\[bB]ig+[lr]?(?=\\[lr]?(vert|Vert|ceil|floor))", ""),
    (r"\\arg(?![a-z])", r"\\mathrm{arg}"),
)


def mathml(node: math | math_block, display: str) -> str:
    """Convert a formula; refuse one that would show up as its source."""
    latex = node.astext()
    for pattern, replacement in REWRITES:
        latex = re.sub(pattern, replacement, latex)
    converted = convert(latex, display=display).replace(r"\_", "_")
    if "\\" in converted or "<mi>&</mi>" in converted:
        raise ValueError(f"no MathML for {latex!r}")
    return converted


def render_inline(translator: HTML5Translator, node: math) -> None:
    """Write an inline formula."""
    translator.body.append(mathml(node, "inline"))
    raise SkipNode


def render_block(translator: HTML5Translator, node: math_block) -> None:
    """Write a displayed formula."""
    translator.body.append(f"<p>{mathml(node, 'block')}</p>\n")
    raise SkipNode


def escape_stars(*arguments: object) -> None:
    """Keep the star of shapes such as (B, *) and (B, *shape) from opening an emphasis."""
    lines = arguments[-1]
    star = re.compile(r"(``[^`]*``)|, \*(?=[)\w])")
    lines[:] = [star.sub(lambda m: m[1] or r", \*", line) for line in lines]


def link_to_copies(app: Sphinx, name: str, source: list[str]) -> None:  # noqa: ARG001
    """Lead to the copies of CONTRIBUTING.md and SECURITY.md among the pages."""
    for page in ("CONTRIBUTING", "SECURITY"):
        source[0] = source[0].replace(f"](../{page}.md", f"]({page.lower()}.md")


def setup(app: Sphinx) -> None:
    """Register with Sphinx what is above."""
    app.add_html_math_renderer("mathml", (render_inline, None), (render_block, None))
    app.connect("autodoc-process-docstring", escape_stars)
    app.connect("source-read", link_to_copies)
