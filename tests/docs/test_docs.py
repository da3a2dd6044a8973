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
    """Each row of the table names the modules of its page, one by one or by their folder; each is documented once."""
    documented = []
    for page, names in re.findall(r"^\| \[.*?\]\((.*?)\) \| (.*) \|$", (DOCS / "api.md").read_text(), re.M):
        listed = re.findall(r"`([\w.]+)`", names)
        here = re.findall(r"automodule:: petdos_md\.([\w.]+)", (DOCS / page).read_text())
        assert not [module for module in here if not any(f"{module}.".startswith(f"{name}.") for name in listed)], page
        assert not [name for name in listed if not any(f"{module}.".startswith(f"{name}.") for module in here)], page
        documented += here
    assert len(documented) == len(set(documented))
    assert not [name for name in documented if importlib.util.find_spec(f"petdos_md.{name}") is None]
    pages = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    assert sorted(documented) == sorted(re.findall(r"automodule:: petdos_md\.([\w.]+)", pages))
