"""``petdos merge``: several traces as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..base.errors import SettingError
from ..base.rounding import counted
from .arguments import Commands, add_path, new_command


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "merge",
        "Join traces of one model into a new one; also copies a trace of an older format into the present one.\n"
        "Replicas are renumbered if two traces share a number. The traces themselves stay as they are. Of one long trace it makes\n"
        "a copy of at most 200 files.",
        "  petdos merge all.zarr first.zarr second.zarr\n"
        "  petdos merge --keep-replicas whole.zarr part-1.zarr part-2.zarr",
        run,
    )
    add_path(parser, "output", metavar="NEW.zarr", folder=True, help="the new trace; must not exist")
    add_path(parser, "traces", nargs="+", metavar="TRACE", folder=True, help="one or more traces of the same model")
    parser.add_argument(
        "--keep-replicas",
        action="store_true",
        help="keep the numbers of replicas: the traces are parts of one simulation",
    )


def run(args: argparse.Namespace) -> int:
    """Merge, print what came from where."""
    places = [Path(trace).expanduser().resolve() for trace in args.traces]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise SettingError(f"{args.traces[i]}: given twice, expected each trace once; leave one out")
    from ..traces.trace import Trace

    merged = Trace.merge(args.output, args.traces, replicas="keep" if args.keep_replicas else "auto")
    for source in merged.attributes["sources"]:
        print(f"{source['path']}: {counted(source['n_samples'], 'sample')}, {_replicas(source['replicas'])}")
    print(f"{args.output}: {counted(len(merged), 'sample')}")
    return 0


def _replicas(numbers: dict[str, Any]) -> str:
    """How the replicas of a source are numbered in the new trace."""
    changed = [f"{old} -> {new}" if int(old) != new else old for old, new in numbers.items()]
    return f"replica{'s' if len(changed) != 1 else ''} {', '.join(changed) or 'none'}"
