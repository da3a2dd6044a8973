"""``petdos rerun``: samples of a trajectory that exists already."""

from __future__ import annotations

import argparse

from ..base.rounding import counted
from .arguments import Commands, add_dos, add_path, load_model, new_command, tell_if_new
from .reading import add_reading, interpretation


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "rerun",
        "Sample the electronic structure of the frames of a trajectory.",
        "  petdos rerun run.extxyz --dos almgsi-lda --temperature 600 --index ::10 -o run.zarr",
        run,
    )
    add_path(parser, "trajectory", metavar="TRAJECTORY", help="any file that ASE reads, and some more")
    add_dos(parser, required=True)
    add_path(parser, "-o", "--output", required=True, metavar="RUN.zarr", folder=True, help="the trace")
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
    parser.add_argument("--resume", action="store_true", help="go on with a trace that exists: add what is missing")
    parser.add_argument(
        "--replica", type=int, default=0, metavar="N", help="for frames that do not name theirs (default: %(default)s)"
    )
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate the frames, print how many."""
    from ..engines.rerun import rerun_trajectory
    from .bars import count_bar

    model = load_model(args.dos, args)
    tell_if_new(args.resume, args.output, exists=False)
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
            replica=args.replica,
            how=interpretation(args),
            progress=bar.update,
        )
    known = f", {done.n_known} were there" if done.n_known else ""
    skipped = f", {done.n_skipped} skipped (not finite)" if done.n_skipped else ""
    print(f"{args.output}: {counted(done.n_new, 'sample')} of {counted(done.n_frames, 'frame')}{known}{skipped}")
    return 0
