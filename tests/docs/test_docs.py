"""The pages of documentation: links lead somewhere, every example is in the gallery, every module named in the API is there."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not {"_build", "_gallery"} & set(p.relative_to(DOCS).parts))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_links(page):
    """In the repository itself, as a hosting site shows it; Sphinx checks its own."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text())
    broken = [t for t in targets if not re.match(r"[a-z]+:", t) and not (page.parent / t).exists()]
    assert not broken, f"{page.name}: links to {', '.join(broken)}, which are not there"


def test_gallery_has_every_example():
    gallery = runpy.run_path(str(DOCS / "gallery.py"))
    assert sorted(gallery["EXAMPLES"]) == sorted(p.stem for p in (ROOT / "examples").glob("[0-9][0-9]_*.py"))
    for folder in gallery["READMES"]:
        assert (ROOT / "examples" / folder / "README.md").exists(), folder


def test_modules_of_the_api():
    documented = re.findall(
        r"automodule:: (petdos_md\.[\w.]+)", "".join(p.read_text() for p in (DOCS / "api").glob("*.md"))
    )
    assert len(documented) == len(set(documented))
    assert not [name for name in documented if importlib.util.find_spec(name) is None]
    table = (DOCS / "api.md").read_text()
    listed = {
        f"petdos_md.{name}" for row in re.findall(r"^\| \[.*$", table, re.M) for name in re.findall(r"`([\w.]+)`", row)
    }
    assert listed == set(documented)
