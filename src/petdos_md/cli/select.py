"""``petdos select``: frames that would teach the model most."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import Commands, add_path, new_command
from .reading import add_reading, interpretation

if TYPE_CHECKING:
    from ..engines.selection import Selection

LARGE = 64
"""Atoms of a structure whose DFT takes hours, not minutes."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "select",
        "Pick from simulations the frames that would teach the DOS model most, for DFT and training.\n"
        "One after the other the frame that is farthest from the training set and from those picked before, by the features of the trace.",
        "  petdos select run.zarr --trajectory run.traj -n 20 -o new.extxyz\n"
        "  petdos select a.zarr b.zarr --trajectory a.dump b.dump --species Al,Mg -n 50 -o new.extxyz",
        run,
    )
    add_path(parser, "traces", nargs="+", metavar="TRACE", folder=True, help="of one model")
    add_path(
        parser,
        "--trajectory",
        nargs="+",
        required=True,
        metavar="FILE",
        help="frames at the steps of the samples; of several traces one for each, in their order",
    )
    parser.add_argument("-n", type=int, default=20, metavar="N", help="how many at most (default: %(default)s)")
    add_path(parser, "-o", "--output", required=True, metavar="NEW.extxyz", help="the structures, with index and tag")
    parser.add_argument(
        "--first-index", type=int, default=0, metavar="I", help="index of the first one (default: %(default)s)"
    )
    parser.add_argument(
        "--stride", type=int, metavar="K", help="steps between frames of files that do not say their steps"
    )
    add_path(parser, "--model", metavar="M", help="the model, if it is no longer where the trace says")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Pick, write, print what was picked."""
    if args.n < 1 or args.first_index < 0:
        raise SettingError(f"got -n {args.n} and --first-index {args.first_index}, expected n >= 1 and an index >= 0")
    if Path(args.output).expanduser().exists():
        raise SettingError(f"{args.output}: exists; give another -o")
    from ..engines.selection import select_frames
    from ..models.model import DOSModel
    from ..traces.trace import Trace

    model = DOSModel.load(args.model or Trace.open(args.traces[0], "r").model.path)
    selection = select_frames(
        model,
        args.traces,
        args.trajectory,
        args.n,
        first_index=args.first_index,
        stride=args.stride,
        file_format=args.format,
        how=interpretation(args),
    )
    selection.write(args.output)
    print("\n".join(_text(selection)))
    print(f"{args.output}: {len(selection.chosen)} of {selection.n_candidates} frames")
    return 0


def _text(selection: Selection) -> list[str]:
    rows = [["index", "trace", "replica", "step", "T (K)", "atoms", "grade", "grade then", "gain"]]
    for found in selection.chosen:
        where = [str(found.atoms.info["index"]), found.trace.name, str(found.replica), str(found.step)]
        numbers = [f"{found.grade:.3g}", f"{found.left:.3g}", f"{found.gain:.3g}"]
        rows.append([*where, f"{found.temperature_K:g}", str(len(found.atoms)), *numbers])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.append("grade then: with those above it in the training set; gain: of the log-determinant of its covariance")
    known = [found for found in selection.chosen if found.left < 1]
    if known:
        lines.append(
            f"note: {len(known)} of them are within the training set and those above them (grade below 1): they teach less"
        )
    largest = max(len(found.atoms) for found in selection.chosen)
    if largest > LARGE:
        lines.append(f"note: up to {largest} atoms: DFT of smaller cells from shorter runs teaches the same for less")
    return lines
