"""``petdos watch``: a trace while it is written."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import Commands, add_path, new_command

if TYPE_CHECKING:
    from ..analysis.following import Follower

_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "watch",
        "Follow a trace while any engine writes it: heat capacity with both errors, samples still to take, a curve.\n"
        "Ctrl-C ends it; the simulation does not notice.",
        "  petdos watch run.zarr\n  petdos watch run.zarr --target-error 0.005 --html run.html",
        run,
    )
    add_path(parser, "trace", metavar="X.zarr", folder=True, help="the trace, which may not be there yet")
    add_path(parser, "--model", metavar="M", help="the model, if it is no longer where the trace says")
    parser.add_argument("--burn-in", type=int, default=0, metavar="STEPS", help="leave out earlier steps")
    parser.add_argument(
        "--target-error",
        type=float,
        default=0.01,
        metavar="X",
        help="relative sampling error of C_el (default: %(default)s)",
    )
    parser.add_argument(
        "--interval", type=float, default=3.0, metavar="S", help="between looks, s (default: %(default)s)"
    )
    add_path(parser, "--html", metavar="FILE", help="write a page that reloads itself, for a browser")
    parser.add_argument("--once", action="store_true", help="look once")
    parser.add_argument("--until-target", action="store_true", help="end when all temperatures have reached the target")


def run(args: argparse.Namespace) -> int:
    """Look again and again."""
    if not 0 < args.interval < math.inf:
        raise SettingError(f"got --interval {args.interval:g}, expected a positive number of seconds")
    from ..analysis.following import Follower

    follower = Follower(args.trace, args.model, args.burn_in, args.target_error)
    page = Path(args.html) if args.html else None
    if args.once:
        return _once(follower, page, args.interval)
    screen = sys.stdout.isatty()
    try:
        if screen:
            print(_ENTER, end="")
        _follow(follower, page, args.interval, screen, args.until_target)
    except KeyboardInterrupt:
        pass  # how it is meant to end
    finally:
        if screen:
            print(_LEAVE, end="", flush=True)
    print("\n".join(_text(follower)))
    return 0


def _once(follower: Follower, page: Path | None, interval_s: float) -> int:
    follower.update()
    _write_page(follower, page, interval_s)
    print("\n".join(_text(follower)))
    return 0 if follower.states else 1


def _follow(follower: Follower, page: Path | None, interval_s: float, screen: bool, until_target: bool) -> None:
    while True:
        new = follower.update()
        if new or (page is not None and not page.exists()):
            _write_page(follower, page, interval_s)
        if screen:
            lines = "".join(f"{line}{_CLEAR_LINE}\n" for line in [*_text(follower), "", "Ctrl-C ends this view"])
            print(_HOME + lines + _CLEAR_BELOW, end="", flush=True)
        elif new:
            print("\n".join(_text(follower)), flush=True)
        if until_target and follower.converged:
            return
        time.sleep(interval_s)


def _text(follower: Follower) -> list[str]:
    from ..results.watching import watch_text

    return watch_text(follower, shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6)


def _write_page(follower: Follower, page: Path | None, interval_s: float) -> None:
    """Whole at every moment: a browser must not find half of it."""
    if page is None:
        return
    from ..results.watching import watch_page

    draft = page.with_name(f".{page.name}.partial")
    draft.write_text(watch_page(follower, max(interval_s, 2.0)))
    os.replace(draft, page)
