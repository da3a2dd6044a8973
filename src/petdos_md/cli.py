"""The command ``petdos``: what it understands. What it does is in ``_commands.py``.

>>> main(["info", "almgsi-lda"])          # doctest: +SKIP
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from .errors import PetdosError

# Torch takes seconds to import: commands are imported when they run, so that --help answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 (``doctor`` found something), 2 (error), 130 (interrupted)."""
    args = make_parser().parse_args(argv)
    # By default, threads of torch that wait for each other keep their cores busy: on a machine with other work to do, that
    # makes everything thirty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from . import _commands

    try:
        return int(getattr(_commands, args.command)(args) or 0)
    except BrokenPipeError:
        # The reader of our output went away (`petdos info ... | head`); Python must not complain at exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PetdosError, OSError) as error:
        if os.environ.get("PETDOS_DEBUG"):
            raise
        # A trace that could not be written says so again when it is dropped.
        logging.getLogger("petdos_md").setLevel(logging.CRITICAL)
        message = " ".join(str(error).split())
        print(f"petdos: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; the same command with --resume goes on" if args.command in ("md", "eval") else ""
        print(f"petdos: interrupted{hint}", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="petdos",
        description="Thermal-average electronic density of states and electronic heat capacity from molecular dynamics.",
        epilog="`petdos COMMAND --help` shows an example. PETDOS_DEBUG=1 shows where an error came from.",
    )
    parser.add_argument("--version", action="version", version=f"petdos {version('petdos-md')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_demo, _md, _eval, _analyze, _export, _info, _doctor):
        add(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, description: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=description.splitlines()[0].rstrip("."),
        description=description,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "demo",
        "Run molecular dynamics of aluminium, silicon and an Al-Mg alloy with the shipped model.\n"
        "Ends with a table, figures and traces. Takes less than five minutes on two cores.",
        "  petdos demo --output demo",
    )
    parser.add_argument("--output", default="demo", metavar="DIR", help="folder for all results (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that everything works")


def _md(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "md",
        "Run molecular dynamics at one or more temperatures and sample the electronic structure.\n"
        "Survives kills: the same command with --resume goes on, and the result is the same.",
        "  petdos md Al.xyz --potential almgsi-lda --dos almgsi-lda --temperature 300 600 900 \\\n"
        "      --steps 2000 --every 10 --seed 1 -o Al.zarr",
    )
    parser.add_argument("structure", metavar="STRUCTURE", help="any file that ASE reads; its last frame is taken")
    parser.add_argument(
        "--potential", required=True, metavar="P", help="emt, a shipped model, or a metatomic model (.pt)"
    )
    _dos(parser)
    parser.add_argument(
        "--temperature", required=True, nargs="+", type=float, metavar="T", help="K; one simulation each"
    )
    parser.add_argument("--steps", required=True, type=int, metavar="N", help="of each simulation, after equilibration")
    parser.add_argument(
        "--every", type=int, default=10, metavar="K", help="steps between samples (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the random numbers (default: drawn, and reported)")
    parser.add_argument("-o", "--output", required=True, metavar="RUN.zarr", help="the trace")
    parser.add_argument("--ensemble", choices=("nvt", "npt"), default="nvt", help="default: %(default)s")
    parser.add_argument(
        "--pressure", type=float, default=0.0, metavar="GPA", help="for npt, GPa (default: %(default)s)"
    )
    parser.add_argument("--timestep", type=float, default=2.0, metavar="FS", help="fs (default: %(default)s)")
    parser.add_argument(
        "--thermostat", type=float, default=100.0, metavar="FS", help="relaxation time, fs (default: %(default)s)"
    )
    parser.add_argument(
        "--barostat", type=float, default=1000.0, metavar="FS", help="relaxation time, fs (default: %(default)s)"
    )
    parser.add_argument(
        "--equilibrate", type=int, metavar="N", help="steps before the first sample (default: a fifth of --steps)"
    )
    parser.add_argument("--supercell", type=int, nargs=3, metavar=("A", "B", "C"), help="repeat the structure")
    parser.add_argument(
        "--target-error", type=float, metavar="X", help="end a simulation at this relative error of C_el"
    )
    parser.add_argument("--checkpoint-every", type=int, default=100, metavar="N", help="steps (default: %(default)s)")
    parser.add_argument("--trajectory", metavar="FILE.traj", help="also write the sampled frames")
    parser.add_argument("--resume", action="store_true", help="go on with a run that ended early")


def _eval(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "eval",
        "Sample the electronic structure of the frames of a trajectory.",
        "  petdos eval almgsi-lda run.extxyz --temperature 600 --index ::10 -o run.zarr",
    )
    parser.add_argument("model", metavar="MODEL", help="a shipped model or a .pt file")
    _model_options(parser)
    parser.add_argument("trajectory", metavar="TRAJECTORY", help="any file that ASE reads")
    parser.add_argument("-o", "--output", required=True, metavar="X.zarr", help="the trace")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help='of the ensemble, K (default: info["temperature_K"] of each frame)',
    )
    parser.add_argument("--index", default=":", metavar="SLICE", help="which frames, as 100::10 (default: all)")
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="frames evaluated together (default: %(default)s)"
    )
    parser.add_argument("--format", metavar="F", help="ASE's name of the file format (default: told by the file)")
    parser.add_argument("--resume", action="store_true", help="add what is missing to a trace that exists")


def _analyze(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "analyze",
        "Average traces: density of states, chemical potential, heat capacity, with model and sampling errors.\n"
        "Writes thermo.csv, dos.nc, summary.json, dos.png and heat_capacity.png.",
        "  petdos analyze run.zarr -o results",
    )
    parser.add_argument("traces", nargs="+", metavar="X.zarr", help="one trace, or several of the same model")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("--model", metavar="M", help="the model, if it is no longer where the trace says")
    parser.add_argument(
        "--reference", choices=("raw", "fermi"), default="fermi", help="zero of energy (default: %(default)s)"
    )
    parser.add_argument("--burn-in", type=int, default=0, metavar="STEPS", help="leave out earlier steps")
    parser.add_argument("--temperature", type=float, nargs="+", metavar="T", help="these only, K")
    parser.add_argument("--error-method", choices=("autocorrelation", "blocking"), default="autocorrelation")
    parser.add_argument("--no-plots", action="store_true", help="write the data only")


def _export(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "export",
        "Make a fast model of a metatrain checkpoint: NAME.pt and NAME.readout.safetensors.\n"
        "The result is compared with the checkpoint's own model; nothing is written if they differ.",
        "  petdos export model.ckpt --llpr llpr.ckpt --electrons Al=3,Mg=2,Si=4 --grid-start -20 -o almgsi.pt",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="of metatrain's PET, or of LLPR around it")
    parser.add_argument("--llpr", metavar="CKPT", help="LLPR checkpoint of the same network, for the ensemble")
    parser.add_argument("-o", "--output", required=True, metavar="NAME.pt")
    parser.add_argument("--electrons", metavar="Al=3,...", help="valence electrons of each element's pseudopotential")
    parser.add_argument("--grid-start", required=True, type=float, metavar="EV", help="first energy of the DOS, eV")
    parser.add_argument(
        "--grid-step", type=float, default=0.05, metavar="EV", help="spacing, eV (default: %(default)s)"
    )
    parser.add_argument(
        "--target", default="mtt::dos", metavar="T", help="the DOS in the checkpoint (default: %(default)s)"
    )
    parser.add_argument("--name", help="for people (default: that of the file)")
    parser.add_argument("--description", default="", help="one sentence for the model's metadata")


def _info(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "info", "Describe a model or a trace.", "  petdos info almgsi-lda\n  petdos info run.zarr"
    )
    parser.add_argument("path", metavar="MODEL|TRACE", help="a shipped model, a .pt file, or a trace")
    parser.add_argument("--json", action="store_true", help="for programs")


def _doctor(commands: argparse._SubParsersAction) -> None:
    _command(
        commands,
        "doctor",
        "Check the installation: versions, model, engines, disk; and say how to mend what does not work.",
        "  petdos doctor",
    )


def _dos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dos", required=True, metavar="M", help="the DOS model: a shipped model or a .pt file")
    _model_options(parser)


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--electrons", metavar="Al=3,...", help="valence electrons, if the model does not know them")
    parser.add_argument("--device", metavar="D", help="cpu or cuda (default: what the model prefers)")


if __name__ == "__main__":
    sys.exit(main())
