"""Thermal-average electronic density of states and electronic heat capacity, on the fly in molecular dynamics.

>>> import petdos_md as pm
>>> model = pm.DOSModel.load("almgsi-lda")        # doctest: +SKIP
>>> result = pm.analyze("run.zarr")               # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import thermo
    from .analysis import analyze
    from .grid import EnergyGrid
    from .model import DOSModel
    from .model_files import shipped_models
    from .sample import ModelInfo, Sample
    from .trace import Trace

# By default, threads of torch that wait for each other keep their cores busy for long: on a machine with other work to do, that
# makes everything many times slower. To sleep at once makes small structures twice as slow; a few microseconds are best. OpenMP
# reads this when torch is imported, and `lmp` when it is started.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = version("petdos-md")
__all__ = ["DOSModel", "EnergyGrid", "ModelInfo", "Sample", "Trace", "analyze", "shipped_models", "thermo"]

_WHERE = {
    "DOSModel": ".model",
    "EnergyGrid": ".grid",
    "ModelInfo": ".sample",
    "Sample": ".sample",
    "Trace": ".trace",
    "analyze": ".analysis",
    "shipped_models": ".model_files",
}


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import: a name is loaded when it is first used.
    if name == "thermo":
        return importlib.import_module(".thermo", __name__)
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
