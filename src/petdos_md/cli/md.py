"""``petdos md``: molecular dynamics with ASE, sampled."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import Commands, add_dos, add_path, load_model, new_command, tell_if_new
from .reading import add_reading, interpretation

if TYPE_CHECKING:
    from ..engines.md import MDSettings


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "md",
        "Run molecular dynamics at one or more temperatures and sample the electronic structure.\n"
        "Survives kills: the same command with --resume goes on, and the result is the same.",
        "  petdos md Al.xyz --potential almgsi-lda --dos almgsi-lda --temperature 300 600 900 \\\n"
        "      --steps 2000 --every 10 --seed 1 -o Al.zarr",
        run,
    )
    add_path(
        parser,
        "structure",
        metavar="STRUCTURE",
        help="any file that ASE reads; its last frame is taken, or FILE@NUMBER",
    )
    add_path(
        parser,
        "--potential",
        required=True,
        metavar="P",
        help="emt, a shipped model, one of upet (pet-mad-s, ...), or a metatomic model (.pt)",
    )
    add_dos(parser, required=True)
    add_path(parser, "-o", "--output", required=True, metavar="RUN.zarr", folder=True, help="the trace")
    add_path(parser, "--trajectory", metavar="FILE.traj", help="also write the sampled frames")
    parser.add_argument("--resume", action="store_true", help="go on with a trace that exists: a run that ended early")
    parser.add_argument("--supercell", type=int, nargs=3, metavar=("A", "B", "C"), help="repeat the structure")
    _add_dynamics(parser)
    parser.add_argument(
        "--electronic-temperature",
        metavar="T",
        help="of hot electrons, K: a number, or TIME:T,TIME:T,... with times in fs after equilibration; the atoms move on the free energy",
    )
    parser.add_argument(
        "--undo-smearing", type=float, default=0.0, metavar="EV", help="of the DOS of hot electrons, at kT above it"
    )
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Run all simulations, print the results."""
    settings = _settings(args)
    from ..engines.checkpoint import RunState
    from ..engines.md import run_md
    from ..engines.potentials import Potential
    from ..engines.structures.closeness import warn_if_close
    from ..engines.structures.files import read_structure
    from ..engines.trajectory import TrajectoryFile
    from ..engines.untouched import untouched
    from .progress import MDProgress, print_outcome

    TrajectoryFile(args.trajectory, args.resume)  # before the model is loaded, see whether it can be written
    atoms = read_structure(args.structure, interpretation(args), args.format)
    if args.supercell:
        if min(args.supercell) < 1:
            raise SettingError(f"got --supercell {' '.join(map(str, args.supercell))}, expected three numbers >= 1")
        atoms = atoms.repeat(args.supercell)
    model = load_model(args.dos, args)
    model.check(atoms)
    warn_if_close(atoms, args.structure)
    potential = Potential.find(args.potential, model)
    state = RunState(args.output)
    tell_if_new(args.resume, args.output, state.exists)
    made = [state.folder, *([args.trajectory] if args.trajectory else [])]
    with untouched(args.output, *made), MDProgress(len(settings.temperatures_K)) as progress:
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
    print_outcome(args.output, model, _took(observer_s, md_s))
    return 0


def _took(observer_s: float, md_s: float) -> str:
    """Nothing if no sample was taken, as after a run that was complete."""
    if not (observer_s > 0 and md_s > 0):
        return ""
    share = 100 * observer_s / md_s
    shown = f"{share:.1f}" if share >= 0.05 else "less than 0.1"
    return f"electronic structure took {shown} % of the time of the dynamics"


def _add_dynamics(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--temperature", required=True, nargs="+", type=float, metavar="T", help="K; one simulation each")
    add("--steps", required=True, type=int, metavar="N", help="of each simulation, after equilibration")
    add("--every", type=int, default=10, metavar="K", help="steps between samples (default: %(default)s)")
    add("--equilibrate", type=int, metavar="N", help="steps before the first sample (default: a fifth of --steps)")
    add("--seed", type=int, metavar="S", help="of the random numbers (default: drawn, and reported)")
    add("--timestep", type=float, default=2.0, metavar="FS", help="fs (default: %(default)s)")
    add("--ensemble", choices=("nvt", "npt"), default="nvt", help="default: %(default)s")
    add("--pressure", type=float, default=0.0, metavar="GPA", help="for npt, GPa (default: %(default)s)")
    add("--thermostat", type=float, default=100.0, metavar="FS", help="relaxation time, fs (default: %(default)s)")
    add("--barostat", type=float, default=1000.0, metavar="FS", help="relaxation time, fs (default: %(default)s)")
    add("--target-error", type=float, metavar="X", help="end a simulation at this relative error of C_el")
    add("--checkpoint-every", type=int, default=100, metavar="N", help="steps (default: %(default)s)")


def _settings(args: argparse.Namespace) -> MDSettings:
    from ..engines.md import MDSettings
    from ..engines.schedule import TemperatureSchedule

    hot = args.electronic_temperature
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
        electronic_temperature=TemperatureSchedule.parse(hot) if hot is not None else None,
        undo_smearing_eV=args.undo_smearing,
    )
    settings.check()
    return settings
