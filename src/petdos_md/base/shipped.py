"""Where files lie that engines read by themselves: beside this package once installed, at the top of the repository in a checkout.

>>> shipped_folder("ipi_drivers").name
'ipi_drivers'
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

MODELS = _PACKAGE / "models" / "shipped"
"""Models shipped with the package."""


def shipped_folder(name: str) -> Path:
    """The folder ``name``, which may be missing from a broken installation."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name
