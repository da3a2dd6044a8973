"""Thermal-average electronic density of states and electronic heat capacity, on the fly in molecular dynamics.

>>> import petdos_md as pm
>>> model = pm.DOSModel.load("almgsi-lda")        # doctest: +SKIP
>>> result = pm.analyze("run.zarr")               # doctest: +SKIP
"""

from __future__ import annotations

import importlib as _importlib
import os as _os
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analysis.analyze import analyze
    from .base.grid import EnergyGrid
    from .base.sample import ModelInfo, Sample
    from .models.files import shipped_models
    from .models.model import DOSModel
    from .physics import thermo
    from .results import plot
    from .traces.trace import Trace

# By default, threads of torch that wait for each other keep their cores busy for long: on a machine with other work to do, that
# makes everything many times slower. To sleep at once makes small structures twice as slow; a few microseconds are best. OpenMP
# reads this when torch is imported, and `lmp` when it is started.
if "OMP_WAIT_POLICY" not in _os.environ:
    _os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = _version("petdos-md")
__all__ = ["DOSModel", "EnergyGrid", "ModelInfo", "Sample", "Trace", "analyze", "plot", "shipped_models", "thermo"]

_MODULES = {
    "DOSModel": "models.model",
    "EnergyGrid": "base.grid",
    "ModelInfo": "base.sample",
    "Sample": "base.sample",
    "Trace": "traces.trace",
    "analyze": "analysis.analyze",
    "plot": "results",
    "shipped_models": "models.files",
    "thermo": "physics",
}
_ENTRY_POINTS = ("ase", "ipi", "lammps")


def __getattr__(name: str) -> object:
    # Torch takes seconds to import: a name is loaded when it is first used.
    if name in _ENTRY_POINTS or name in ("plot", "thermo"):
        return _importlib.import_module("." + (name if name in _ENTRY_POINTS else f"{_MODULES[name]}.{name}"), __name__)
    if name in _MODULES:
        return getattr(_importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ENTRY_POINTS, "__doc__", "__version__"])
