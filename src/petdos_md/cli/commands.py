"""What the commands of ``petdos`` do; their arguments are in ``cli.py``. One function each, named after the command."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..base.errors import SettingError


def demo(args: argparse.Namespace) -> int:
    from .demo import run_demo

    run_demo(args.output, quick=args.quick)
    return 0


def md(args: argparse.Namespace) -> int:
    from ..engines.md import MDSettings, run_md
    from ..engines.potentials import Potential
    from ..engines.structure_files import read_structure
    from .arguments import load_model
    from .progress import MDProgress, print_outcome

    settings = MDSettings(
        temperatures_K=tuple(args.temperature),
        steps=args.steps,
        every=args.every,
        timestep_fs=args.timestep,
        ensemble=args.ensemble,
        pressure_GPa=args.pressure,
        equilibrate=args.equilibrate,
        seed=args.seed,
        thermostat_fs=args.thermostat,
        barostat_fs=args.barostat,
        checkpoint_every=args.checkpoint_every,
        target_error=args.target_error,
    )
    settings.check()
    atoms = read_structure(args.structure)
    if args.supercell:
        if min(args.supercell) < 1:
            raise SettingError(f"got --supercell {' '.join(map(str, args.supercell))}, expected three numbers >= 1")
        atoms = atoms.repeat(args.supercell)
    model = load_model(args.dos, args)
    potential = Potential.find(args.potential, model)
    with MDProgress(len(settings.temperatures_K)) as progress:
        results = run_md(
            atoms,
            potential,
            model,
            args.output,
            settings,
            resume=args.resume,
            trajectory=args.trajectory,
            progress=progress,
        )
    observer_s, md_s = sum(r.observer_s for r in results), sum(r.md_s for r in results)
    took = f"electronic structure took {100 * observer_s / md_s:.1f} % of the time of the dynamics" if md_s > 0 else ""
    print_outcome(args.output, model, took)
    return 0


def ipi(args: argparse.Namespace) -> int:
    from .ipi import ipi

    return ipi(args)


def eval(args: argparse.Namespace) -> int:
    from ..engines.rerun import rerun_trajectory
    from .arguments import load_model
    from .progress import count_bar

    model = load_model(args.model, args)
    with count_bar(None, "frame") as bar:
        done = rerun_trajectory(
            model,
            args.trajectory,
            args.output,
            temperature_K=args.temperature,
            index=args.index,
            batch=args.batch,
            resume=args.resume,
            file_format=args.format,
            progress=bar.update,
        )
    known = f", {done.n_known} were there" if done.n_known else ""
    skipped = f", {done.n_skipped} skipped (not finite)" if done.n_skipped else ""
    print(f"{args.output}: {done.n_new} samples of {done.n_frames} frames{known}{skipped}")
    return 0


def analyze(args: argparse.Namespace) -> int:
    if args.reweight is not None and (args.denoise or args.weights or args.carriers or args.electronic_temperature):
        raise SettingError(
            "--reweight averages plain DOS of all frames; leave out --denoise, --weights, --carriers and the like"
        )
    from ..analysis.analyze import analyze
    from ..results.report import format_table, write_report
    from .arguments import parse_temperatures
    from .progress import share_bar

    with share_bar("part") as show:
        result = analyze(
            args.traces if len(args.traces) > 1 else args.traces[0],
            args.model,
            temperatures_K=args.temperature,
            reference=args.reference,
            burn_in=args.burn_in,
            error_method=args.error_method,
            align=args.align,
            denoise=True if args.denoise == "auto" else args.denoise or False,
            weights=args.weights,
            electronic_temperatures_K=parse_temperatures(args.electronic_temperature),
            carriers=args.carriers,
            progress=show,
        )
    paths = write_report(result, args.output, plots=not args.no_plots, normalization=args.units)
    print(format_table(result))
    if args.reweight is not None:
        from ..analysis.mbar import reweighted_estimate
        from ..results.reweighted import format_reweighted, write_reweighted

        reweighted = reweighted_estimate(args.traces, args.reweight, args.model, burn_in=args.burn_in)
        paths += write_reweighted(reweighted, result, args.output, plots=not args.no_plots)
        print(format_reweighted(reweighted, result))
    print("written: " + " ".join(str(path) for path in paths))
    return 0


def levels(args: argparse.Namespace) -> int:
    from .levels import levels

    return levels(args)


def evaluate(args: argparse.Namespace) -> int:
    from .validate import evaluate

    return evaluate(args)


def calibrate(args: argparse.Namespace) -> int:
    from .validate import calibrate

    return calibrate(args)


def export(args: argparse.Namespace) -> int:
    from ..base.electrons import parse_electrons

    electrons = parse_electrons(args.electrons)
    try:
        import metatrain  # noqa: F401
    except ModuleNotFoundError:
        raise SettingError("export needs metatrain; install it with: pip install 'petdos-md[train]'") from None
    if args.checkpoint == "pet-mad-dos":
        from .pet_mad_dos import export_published

        return export_published(args)
    if args.output is None or args.grid_start is None:
        raise SettingError(f"{args.checkpoint}: give -o NAME.pt and --grid-start EV, the first energy of its DOS")
    from ..models.export import export_model

    report = export_model(
        args.checkpoint,
        args.output,
        llpr=args.llpr,
        grid_start=args.grid_start,
        grid_step=args.grid_step,
        electrons=electrons,
        target=args.target,
        name=args.name,
        description=args.description,
    )
    print(
        f"{report.backbone}: {report.n_last_layer} features, {report.n_channels} energies, {report.n_members} members"
    )
    print(f"{report.readout}: keep it beside the model")
    print(
        f"largest deviation from the checkpoint: DOS {report.dos_deviation:.1e}, members {report.ensemble_deviation:.1e}"
    )
    if electrons is None:
        print("valence electrons are not known: results will need --electrons", file=sys.stderr)
    return 0


def info(args: argparse.Namespace) -> int:
    path = Path(args.path)
    described = _trace_info(path) if path.is_dir() else _model_info(args.path)
    if args.json:
        print(json.dumps(described, indent=2))
    else:
        width = max(len(key) for key in described)
        for key, value in described.items():
            print(f"{key:<{width}}  {_text(value)}")
    return 0


def lammps(args: argparse.Namespace) -> int:
    from .lammps import lammps

    return lammps(args)


def doctor(args: argparse.Namespace) -> int:
    from .doctor import diagnose

    return diagnose()


def _model_info(name: str) -> dict[str, Any]:
    from ase.data import chemical_symbols

    from ..models.model import DOSModel

    model = DOSModel.load(name)
    return {
        "model": model.info.name,
        "path": str(model.path),
        "kind": model.info.kind,
        "elements": [chemical_symbols[n] for n in model.atomic_types],
        "valence electrons": {k: model.electrons[k] for k in sorted(model.electrons)},
        "energies": f"{model.grid.n} from {model.grid.start:g} to {model.grid.stop:g} eV, step {model.grid.step:g} eV",
        "members": model.n_members,
        "drives dynamics": "yes" if model.has_energy else "no (no energy output)",
        "cutoff (angstrom)": model.cutoff,
        "numbers per sample": model.info.n_features,
        "precision": model.info.dtype,
        "device": str(model.device),
        "fingerprint": model.info.fingerprint,
    }


def _trace_info(path: Path) -> dict[str, Any]:
    import numpy as np

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
        "skipped": trace.skipped or 0,
        "engine": trace.engine or "unknown",
        "timestep (fs)": trace.timestep_fs if trace.timestep_fs == trace.timestep_fs else None,
        "model": f"{model.name} ({model.kind}, {model.n_members} members)",
        "model path": model.path,
        "fingerprint": model.fingerprint,
        "energies": f"{model.grid.n} from {model.grid.start:g} to {model.grid.stop:g} eV",
        "settings": trace.attributes.get("metadata", {}),
        "versions": trace.attributes.get("versions", {}),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "unknown" if value is None else str(value)
