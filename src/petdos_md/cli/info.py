"""``petdos info``: what a model or a trace is."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import ModelError
from ..models.output_names import ENERGY_ENSEMBLE, ENERGY_UNCERTAINTY
from .arguments import Commands, add_path, new_command

if TYPE_CHECKING:
    from ..models.model import DOSModel
    from ..models.readout import Readout


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "info",
        "Describe a model or a trace.",
        "  petdos info almgsi-lda\n  petdos info run.zarr",
        run,
    )
    add_path(parser, "path", metavar="MODEL|TRACE", help="a shipped model, a .pt file, or a trace")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print the description."""
    described = _describe(args.path)
    if args.json:
        print(json.dumps(described, indent=2))
    else:
        width = max(map(len, described))
        for key, value in described.items():
            print(f"{key:<{width}}  {_text(value)}")
    return 0


def _describe(name: str) -> dict[str, Any]:
    from ..models.files import PUBLISHED, shipped_models

    path = Path(name)
    if (path / "zarr.json").exists():
        return _trace_info(path)
    if path.is_file() or name in (*shipped_models(), PUBLISHED):
        return _model_info(name)
    found = "a folder without zarr.json" if path.is_dir() else "no such file or folder"
    shipped = ", ".join(shipped_models()) or "none"
    raise ModelError(
        f"{name}: neither a model nor a trace ({found}); give a trace, a .pt file, or a model that is shipped: {shipped}"
    )


def _model_info(name: str) -> dict[str, Any]:
    from ase.data import chemical_symbols

    from ..base.sample import KINDS
    from ..models.model import DOSModel

    model = DOSModel.load(name)
    return {
        "model": model.info.name,
        "path": str(model.path),
        "readout": KINDS[model.info.kind],
        "elements": [chemical_symbols[n] for n in model.atomic_types],
        "valence electrons": {k: model.electrons[k] for k in sorted(model.electrons)},
        "energies": f"{model.grid.n} from {model.grid.start:g} to {model.grid.stop:g} eV, step {model.grid.step:g} eV",
        "members": model.n_members,
        "training set": _training_set(model),
        "drives dynamics": "yes" if model.has_energy else "no (no energy output)",
        "uncertainty of energies": _energy_uncertainty(model),
        "cutoff (angstrom)": model.cutoff,
        "numbers per sample": model.info.n_features,
        "precision": model.info.dtype,
        "device": str(model.device),
        "fingerprint": model.info.fingerprint,
        **_relatives(model.readout),
    }


def _relatives(readout: Readout) -> dict[str, str]:
    """Models whose traces it reads, having the same network: what it was refined or calibrated from."""
    listed = ", ".join(fingerprint[:12] for fingerprint in readout.ancestors)
    return {"reads traces of": f"itself and {listed}"} if listed else {}


def _training_set(model: DOSModel) -> str:
    """Whether there is a sign when the model extrapolates."""
    rigidity = model.readout.rigidity
    if rigidity is None:
        return "not known: no sign when a structure is far from it"
    if not rigidity.n_structures:
        return "covariance of its features only: no sign when a structure is far from it"
    return f"{rigidity.n_structures} structures: a sign when one is far from them (extrapolation grade)"


def _energy_uncertainty(model: DOSModel) -> str:
    outputs = model.evaluator.module.capabilities().outputs
    if not model.has_energy:
        return "no energy output"
    names = [name for name in (ENERGY_UNCERTAINTY, ENERGY_ENSEMBLE) if name in outputs]
    return f"{', '.join(names)} of metatomic" if names else "not known"


def _trace_info(path: Path) -> dict[str, Any]:
    import numpy as np

    from ..base.sample import KINDS
    from ..traces.trace import Trace

    trace = Trace.open(path, "r")
    model = trace.model
    temperature = trace.temperature_K
    samples = {f"{t:g} K": int(np.sum(np.abs(temperature - t) <= 1e-6 * t)) for t in trace.temperatures_K}
    step = trace.step
    return {
        "trace": str(path),
        "samples": len(trace),
        "by temperature": samples,
        "steps": f"{step.min()} to {step.max()}" if len(step) else "none",
        "simulations": len(np.unique(trace.replica)),
        "skipped": trace.skipped,
        "engine": trace.engine or "unknown",
        "timestep (fs)": None if math.isnan(trace.timestep_fs) else trace.timestep_fs,
        "model": f"{model.name}, {model.n_members} members",
        "readout": KINDS[model.kind],
        "model path": model.path,
        "fingerprint": model.fingerprint,
        "energies": f"{model.grid.n} from {model.grid.start:g} to {model.grid.stop:g} eV",
        "settings": trace.attributes.get("metadata", {}),
        "versions": trace.attributes.get("versions", {}),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if value is None:
        return "unknown"
    return f"{value:g}" if isinstance(value, float) else str(value)
