"""The command ``petdos``: its commands, and what becomes of their errors. Each command is a module of this folder.

>>> main(["info", "almgsi-lda"])          # doctest: +SKIP
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

from ..base.errors import PetdosError
from ..base.fixes import FULL, fix_for
from . import (
    analyze,
    calibrate,
    completion,
    convert,
    demo,
    doctor,
    export,
    free_energy,
    info,
    ipi,
    lammps,
    levels,
    md,
    merge,
    ramp,
    refine,
    rerun,
    select,
    truncate,
    validate,
    watch,
)
from .arguments import Parser

GROUPS = {
    "sample": (md, ipi, rerun),
    "analyze": (analyze, watch, levels, ramp, free_energy, select),
    "traces and models": (info, merge, truncate, convert, export, validate, calibrate, refine),
    "this installation": (demo, doctor, lammps, completion),
}
ERROR, BUG, INTERRUPTED = 2, 70, 130
"""Exit statuses besides that of the command: 70 is EX_SOFTWARE of sysexits.h, 130 is 128 + SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    :param argv: its words; those of this process if None
    :returns: the exit status: 0, 1 (the command says what is wrong), 2 (an error that the user can fix), 70 (a bug), 130
        (interrupted)
    """
    args = make_parser().parse_args(argv)
    try:
        status = int(args.func(args))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of our output went away, as in `petdos info ... | head`.
        _discard_output()
        return 0
    except KeyboardInterrupt:
        hint = "; the same command with --resume goes on" if "resume" in args else ""
        print(f"petdos: interrupted{hint}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # whatever it is, users get one line
        if os.environ.get("PETDOS_DEBUG"):
            raise
        if argv is None:
            # The process ends now. A trace that could not be written says so again when it is dropped.
            logging.getLogger("petdos_md").setLevel(logging.CRITICAL)
        status, message = _explain(error)
        print(f"petdos: {' '.join(message.split())}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return status


def make_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = _GroupedParser(
        prog="petdos",
        description="Thermal-average electronic density of states and electronic heat capacity from molecular dynamics.",
        epilog="`petdos COMMAND --help` shows an example. PETDOS_DEBUG=1 shows where an error came from.",
    )
    parser.add_argument("--version", action="version", version=f"petdos {version('petdos-md')}")
    parser.commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for modules in GROUPS.values():
        for module in modules:
            module.add_parser(parser.commands)
    return parser


def command_of(module: ModuleType) -> str:
    """The command that a module of this folder is."""
    return module.__name__.rpartition(".")[2].replace("_", "-")


class _GroupedParser(Parser):
    """Its help lists the commands by what they are for."""

    commands: Any

    def format_help(self) -> str:
        listed = {action.dest: action for action in self.commands._get_subactions()}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, modules in GROUPS.items():
            formatter.start_section(title)
            formatter.add_arguments([listed[command_of(module)] for module in modules])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments([action for action in self._actions if action.option_strings])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def _discard_output() -> None:
    """What could not be written, so that Python does not try, and complain, once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception) -> tuple[int, str]:
    """Exit status and message of an exception."""
    if isinstance(error, PetdosError):
        return ERROR, f"error: {error}"
    if isinstance(error, OSError):
        if error.filename is not None or error.errno in FULL:
            return ERROR, f"error: {error.filename or 'cannot write'}: {error.strerror}; {fix_for(error)}"
        return ERROR, f"error: {error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is that of torch
        return ERROR, "error: out of memory; take fewer atoms or frames at once, or a machine with more"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return BUG, f"internal error: {what}; this is a bug of petdos-md, please report it with what PETDOS_DEBUG=1 shows"


if __name__ == "__main__":
    sys.exit(main())
