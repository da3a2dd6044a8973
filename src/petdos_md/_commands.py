"""What the commands of ``petdos`` do; their arguments are in ``cli.py``. One function each, named after the command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PetdosError, SettingError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

    from .model import DOSModel
    from .trace import Trace


def demo(args: argparse.Namespace) -> int:
    from .demo import run_demo

    run_demo(args.output, quick=args.quick)
    return 0


def md(args: argparse.Namespace) -> int:
    from ._progress import MDProgress
    from .md import MDSettings, run_md
    from .potentials import Potential

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
    model = _load_model(args.dos, args)
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
    _print_table(args.output, model)
    if md_s > 0:
        print(f"electronic structure took {100 * observer_s / md_s:.1f} % of the time of the dynamics")
    print(f"samples: {args.output}   next: petdos analyze {args.output} -o OUT")
    return 0


def ipi(args: argparse.Namespace) -> int:
    from ._command_ipi import ipi

    return ipi(args)


def eval(args: argparse.Namespace) -> int:
    from ._progress import count_bar
    from .evaluate import evaluate_trajectory

    model = _load_model(args.model, args)
    with count_bar(None, "frame") as bar:
        done = evaluate_trajectory(
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
    refused = f", {done.n_refused} refused (not finite)" if done.n_refused else ""
    print(f"{args.output}: {done.n_new} samples of {done.n_frames} frames{known}{refused}")
    return 0


def analyze(args: argparse.Namespace) -> int:
    if args.pooled is not None and (args.denoise or args.weights or args.carriers or args.electronic_temperature):
        raise SettingError(
            "--pooled averages plain DOS of all frames; leave out --denoise, --weights, --carriers and the like"
        )
    from ._progress import share_bar
    from .analysis import analyze
    from .report import format_table, write_report

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
    paths = write_report(result, args.output, plots=not args.no_plots, amount=args.units)
    print(format_table(result))
    if args.pooled is not None:
        from ._pooled_report import format_pooled, write_pooled
        from .mbar import pooled_estimate

        pooled = pooled_estimate(args.traces, args.pooled, args.model, burn_in=args.burn_in)
        paths += write_pooled(pooled, result, args.output, plots=not args.no_plots)
        print(format_pooled(pooled, result))
    print("written: " + " ".join(str(path) for path in paths))
    return 0


def levels(args: argparse.Namespace) -> int:
    from ._command_levels import levels

    return levels(args)


def evaluate(args: argparse.Namespace) -> int:
    from ._command_evaluate import evaluate

    return evaluate(args, parse_electrons(args.electrons))


def calibrate(args: argparse.Namespace) -> int:
    from ._command_evaluate import calibrate

    return calibrate(args, parse_electrons(args.electrons))


def export(args: argparse.Namespace) -> int:
    electrons = parse_electrons(args.electrons)
    try:
        import metatrain  # noqa: F401
    except ModuleNotFoundError:
        raise SettingError("export needs metatrain; install it with: pip install 'petdos-md[train]'") from None
    if args.checkpoint == "pet-mad-dos":
        from ._command_pet_mad_dos import export_published

        return export_published(args)
    if args.output is None or args.grid_start is None:
        raise SettingError(f"{args.checkpoint}: give -o NAME.pt and --grid-start EV, the first energy of its DOS")
    from .export import export_model

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
    print(f"{report.trunk}: {report.n_features} features, {report.n_channels} energies, {report.n_members} members")
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
    from ._command_lammps import lammps

    return lammps(args)


def doctor(args: argparse.Namespace) -> int:
    from .doctor import diagnose

    return diagnose()


def read_structure(path: str) -> Atoms:
    """The last structure of a file.

    :raises SettingError: if there is none
    :raises StructureError: if it has no atoms or numbers that are not finite
    """
    import ase.io
    import numpy as np

    if not os.path.exists(path.split("@")[0]):
        raise SettingError(f"{path}: no such file; give a structure in any format that ASE reads")
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # each of ASE's many readers has its own
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise SettingError(
            f"{path}: ASE cannot read it ({reason}); convert it, for example to .extxyz or .cif"
        ) from None
    atoms = atoms[-1] if isinstance(atoms, list) else atoms
    if len(atoms) == 0:
        raise StructureError(f"{path}: the structure has no atoms, expected at least one; give another file")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{path}: its positions or cell are not finite (NaN or infinite); give another structure")
    return atoms


def parse_electrons(text: str | None) -> dict[str, float] | None:
    """``Al=3,Mg=2`` as a dictionary.

    :raises SettingError: if it is something else
    """
    from ase.data import atomic_numbers

    if text is None:
        return None
    electrons = {}
    for part in text.replace(" ", ",").split(","):
        symbol, _, number = part.partition("=")
        try:
            electrons[symbol] = float(number)
        except ValueError:
            electrons[symbol] = -1.0
        if symbol not in atomic_numbers or not electrons[symbol] > 0:
            raise SettingError(f"got --electrons {text}, expected element=number of valence electrons, as in Al=3,Mg=2")
    return electrons


def parse_temperatures(text: str | None) -> list[float] | None:
    """``300,600`` or ``100:2000:100`` (the last one included) as a list.

    :raises SettingError: if it is something else
    """
    import numpy as np

    if text is None:
        return None
    try:
        numbers = [float(x) for x in text.replace(":", ",").split(",")]
    except ValueError:
        numbers = []
    if ":" in text and len(numbers) == 3 and numbers[2] > 0 and numbers[1] >= numbers[0]:
        first, last, step = numbers
        numbers = [float(x) for x in np.arange(first, last + 1e-9 * step, step)]
    elif ":" in text:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise SettingError(f"got the temperatures {text}, expected T1,T2,... or FIRST:LAST:STEP in K, all positive")
    return numbers


def _load_model(name: str, args: argparse.Namespace) -> DOSModel:
    from .model import DOSModel

    return DOSModel.load(name, args.device, electrons=parse_electrons(args.electrons))


def _print_table(trace: str | Trace, model: DOSModel) -> None:
    from .analysis import analyze
    from .report import format_table

    try:
        print(format_table(analyze(trace, model)))
    except PetdosError as error:
        raise type(error)(f"the run is complete and its samples are in {trace}, but: {error}") from None


def _model_info(name: str) -> dict[str, Any]:
    from ase.data import chemical_symbols

    from .model import DOSModel

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
        "numbers per sample": model.info.n_psi,
        "precision": model.info.dtype,
        "device": str(model.device),
        "fingerprint": model.info.fingerprint,
    }


def _trace_info(path: Path) -> dict[str, Any]:
    import numpy as np

    from .trace import Trace

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
        "refused": trace.refused or 0,
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
