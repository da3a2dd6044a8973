"""How Sphinx makes the documentation; `make docs` runs it. Nothing is fetched from the network."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

project = "petdos-md"
author = "The petdos-md developers"
project_copyright = f"2026, {author}"
release = version = installed("petdos-md")

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions = ["mathml", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "**/outputs"]
html_theme = "furo"
html_title = f"petdos-md {release}"
html_static_path = ["_static"]
html_css_files = ["petdos.css"]
html_show_sphinx = False
highlight_language = "text"  # of blocks that name none: commands, decks
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "Array": "Array"}
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

# On a page, a link to an example leads to its page; on the hosting site it leads to the file.
EXAMPLE_PAGES = {
    "README.md": "index",
    "lammps": "lammps",
    "lammps/": "lammps",
    "ipi/README.md": "ipi",
    "training/README.md": "training",
    "cases/README.md": "cases",
}


def _example_links(app, docname: str, source: list[str]) -> None:
    depth = docname.count("/")

    def page_of(match: re.Match[str]) -> str:
        path = match.group(1)
        name = EXAMPLE_PAGES.get(path) or (Path(path).stem if re.fullmatch(r"\d\d_\w+\.py", path) else None)
        return f"]({'../' * depth}_gallery/{name}.md)" if name else match.group(0)

    source[0] = re.sub(r"\]\((?:\.\./)+examples/([\w./-]*)\)", page_of, source[0])


def _plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings without the marks that are for doctest only; a bar is the sign of an absolute value, not of a substitution."""
    for i, line in enumerate(lines):
        line = re.sub(r"\s*# doctest: \+\w+.*$", "", line)
        if ">>>" not in line:
            parts = line.split("``")
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            line = "``".join(parts)
        lines[i] = line


def _plain_aliases(app, what, name, obj, options, signature: str | None, returns: str | None):
    """Names of types as they stand in the code."""

    def plain(text: str | None) -> str | None:
        return text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)

    return plain(signature), plain(returns)


def setup(app) -> None:
    app.connect("autodoc-process-signature", _plain_aliases)
    app.connect("source-read", _example_links)
    app.connect("autodoc-process-docstring", _plain_docstring)
