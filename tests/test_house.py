"""Rules that hold for every module: a folder imports only what lies below it, examples in docstrings run."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import sizes

import petdos_md

FOLDER = Path(petdos_md.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if path.name != "__init__.py"
)
FOLDERS = sorted({path.parent for path in FOLDER.rglob("*.py")})


def source(name: str) -> str:
    return (FOLDER / Path(*name.split("."))).with_suffix(".py").read_text()


def test_folders_import_what_lies_below_them() -> None:
    """The contracts of import-linter in pyproject.toml."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_sizes() -> None:
    """The counted table of tests/sizes.py: nothing is over a limit without a reason."""
    for script in ("sizes.py", "lowest.py"):
        done = subprocess.run(
            [sys.executable, "-m", "doctest", str(ROOT / "tests" / script)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "sizes.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sizes_are_seen(tmp_path: Path) -> None:
    """A module, a function and a signature that are just too large, in both languages, and what is just small enough."""
    code = {
        "long.py": "\n" * 400 + "x = 1\n",
        "fits.py": "def f(self, a, b, c, d, e, f, *, g, h):\n" + "    x = 1\n" * 59 + "\n" * 340,
        "two.py": "class A:\n    def f(self, a, b, c, d, e, f, g, *h, i):\n" + "        x = 1\n" * 60,
        "two.cpp": "int n::f(int a, A<int, 2> b, int c, int d, int e, int f, int g, int h, int i)\n{\n"
        + "  if (a) { return b; }  // }\n" * 58
        + "}\n",
        "fits.h": "struct S {\n  int f(int a) const\n  {\n" + '    std::string s = "}";\n' * 57 + "  }\n};\n",
    }
    (tmp_path / "src").mkdir()
    for name, text in code.items():
        (tmp_path / "src" / name).write_text(text)
    assert [tuple(large) for large in sizes.oversized(("src",), tmp_path)] == [
        ("src/two.cpp", "n::f", "lines of a function", 61),
        ("src/two.py", "A.f", "lines of a function", 61),
        ("src/long.py", "", "lines of a module", 401),
        ("src/two.cpp", "n::f", "parameters", 9),
        ("src/two.py", "A.f", "parameters", 9),
    ]


def runnable(name: str) -> bool:
    """Whether a module has an example that is not left out."""
    lines = source(name).splitlines()
    return any(line.lstrip().startswith(">>>") and "+SKIP" not in line for line in lines)


@pytest.mark.parametrize("name", [m for m in MODULES if runnable(m)])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"petdos_md.{name}"))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", [m for m in MODULES if m != "__main__"])
def test_modules_say_what_they_are_for(name: str) -> None:
    """By a sentence and, but for the commands, an example."""
    text = ast.get_docstring(ast.parse(source(name)))
    assert text and (name.startswith("cli.") or ">>>" in text)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folders_say_what_lives_there(folder: Path) -> None:
    """And what may be imported there."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text and (folder == FOLDER or "mport" in text)


def test_face() -> None:
    """What completion offers is the public face, and every name is there."""
    names = ["DOSModel", "EnergyGrid", "ModelInfo", "Sample", "Trace", "analyze", "plot", "shipped_models", "thermo"]
    assert sorted(petdos_md.__all__) == names
    assert [name for name in dir(petdos_md) if not name.startswith("_")] == sorted([*names, "ase", "ipi", "lammps"])
    for name in dir(petdos_md):
        assert getattr(petdos_md, name) is not None


def test_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "petdos_md", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("petdos ")
