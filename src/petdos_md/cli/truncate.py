"""``petdos truncate``: drop the samples after a step."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..base.errors import SettingError
from ..base.rounding import counted
from .arguments import Commands, add_path, new_command

LAST_STEP = 2**63 - 1


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "truncate",
        "Drop the samples of a trace after a step, so that a simulation can go on from an older checkpoint.\n"
        "Without --step it only finishes a truncation that was interrupted by a kill.",
        "  petdos truncate run.zarr --step 5000\n"
        "  petdos truncate run.zarr --step 5000 --replica 2\n"
        "  petdos truncate run.zarr",
        run,
    )
    add_path(parser, "trace", metavar="TRACE", folder=True, help="the trace; nothing else may write it meanwhile")
    parser.add_argument("--step", type=int, metavar="N", help="the last step to keep")
    parser.add_argument("--replica", type=int, metavar="R", help="of this replica only (default: all)")


def run(args: argparse.Namespace) -> int:
    """Truncate, print how many samples were dropped."""
    _check(args)
    from ..traces.trace import Trace

    path = Path(args.trace).expanduser()
    interrupted = (path / "features" / "truncate.npz").exists()  # docs/trace-format.md
    replicas = sorted(set(Trace.open(path, "r").replica.tolist()))
    if args.replica is not None and args.replica not in replicas:
        known = ", ".join(map(str, replicas)) or "none"
        raise SettingError(
            f"{path}: no samples of replica {args.replica}, it has replicas: {known}; choose one of these"
        )
    with Trace.open(path, "a") as trace:
        dropped = trace.truncate(LAST_STEP if args.step is None else args.step, args.replica)
        left = len(trace)
    if interrupted:
        print(f"{path}: finished a truncation that had been interrupted")
    if args.step is None and not interrupted:
        print(f"{path}: no interrupted truncation, nothing to do; {counted(left, 'sample')}")
    elif args.step is None:
        print(f"{path}: {counted(left, 'sample')} left")
    else:
        whose = "" if args.replica is None else f" of replica {args.replica}"
        print(
            f"{path}: dropped {counted(dropped, 'sample')}{whose} after step {args.step}; {counted(left, 'sample')} left"
        )
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.step is None and args.replica is not None:
        raise SettingError("got --replica without --step; give --step N, the last step to keep")
    if args.step is not None and not 0 <= args.step <= LAST_STEP:
        raise SettingError(f"got --step {args.step}, expected the last step to keep, >= 0")
