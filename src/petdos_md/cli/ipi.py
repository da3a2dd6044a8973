"""``petdos ipi``: run an i-PI input with an observer, or print what an input of the stock ``i-pi`` needs.

>>> run_ipi("input.xml", model, "run.zarr", every=50)           # doctest: +SKIP
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from ..base.errors import PetdosError, SettingError
from ..base.shipped import shipped_folder
from .arguments import Commands, add_dos, add_path, load_model, new_command

if TYPE_CHECKING:
    from ..models.model import DOSModel


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "ipi",
        "Run an input of i-PI and sample the electronic structure of all its replicas and beads.\n"
        "Ends as `i-pi` does: with a RESTART, from which the same command with RESTART for the input goes on.",
        "  petdos ipi input.xml --dos almgsi-lda --every 50 -o run.zarr\n"
        "  petdos ipi --snippet --dos almgsi-lda --every 50 -o run.zarr",
        run,
    )
    help_input = "an input of i-PI, or a RESTART or checkpoint file"
    add_path(parser, "input", nargs="?", metavar="INPUT", help=help_input)
    add_dos(parser)
    parser.add_argument("--every", type=int, metavar="N", help="steps between samples")
    help_output = "the trace; samples after the RESTART are taken again"
    add_path(parser, "-o", "--output", metavar="RUN.zarr", folder=True, help=help_output)
    parser.add_argument("--burn-in", type=int, default=0, metavar="STEPS", help="no samples at earlier steps")
    parser.add_argument(
        "--max-failed",
        type=int,
        default=10,
        metavar="N",
        help="failures in a row that end the run (default: %(default)s)",
    )
    help_previous = "the trace that the run of the RESTART has written so far"
    add_path(parser, "--previous", metavar="OLD.zarr", folder=True, help=help_previous)
    help_collect = "run nothing: sort features that drivers sent as extras, of these atoms, into a trace"
    add_path(parser, "--collect", metavar="STRUCTURE", help=help_collect)
    parser.add_argument("--snippet", action="store_true", help="print what to paste into an input of the stock `i-pi`")
    parser.add_argument("--drivers", action="store_true", help="print the folder of the force fields for i-PI")


def run(args: argparse.Namespace) -> int:
    """Do what is asked for; see :func:`run_ipi`."""
    if args.drivers:
        print(shipped_folder("ipi_drivers"))
        return 0
    from ..engines.ipi.setup import check_version

    check_version()
    _check(args)
    if args.snippet:
        from ..engines.ipi.hook import snippet

        print(snippet(args.dos, args.every, args.output, args.burn_in))
        return 0
    if args.input is None:
        raise SettingError("petdos ipi: no input given; expected an input of i-PI, or RESTART to go on with a run")
    if not os.path.exists(args.input):
        raise SettingError(f"{args.input}: no such file; give an input of i-PI, or RESTART to go on with a run")
    from .progress import print_outcome

    model = load_model(args.dos, args)
    good = True
    if args.collect is not None:
        _collect(args, model)
    else:
        good = run_ipi(
            args.input,
            model,
            args.output,
            every=args.every,
            burn_in=args.burn_in,
            max_failed=args.max_failed,
            previous=args.previous,
        )
    print_outcome(args.output, model)
    return 0 if good else 1


def _check(args: argparse.Namespace) -> None:
    needed = {"--dos": args.dos, "--every": args.every, "-o": args.output}
    if args.collect is not None:  # the stride is in the input then
        del needed["--every"]
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise SettingError(
            f"petdos ipi: {missing[0]} is missing; expected {' '.join(f'{name} ...' for name in needed)}"
        )


def _collect(args: argparse.Namespace, model: DOSModel) -> None:
    from ..engines.ipi.collect import collect
    from ..engines.structures.files import read_structure
    from .bars import count_bar

    with count_bar(None, "sample") as bar:
        collect(args.input, model, read_structure(args.collect), args.output, burn_in=args.burn_in, progress=bar.update)


def run_ipi(
    path: str | os.PathLike[str],
    model: DOSModel,
    output: str | os.PathLike[str],
    *,
    every: int,
    burn_in: int = 0,
    max_failed: int = 10,
    previous: str | os.PathLike[str] | None = None,
) -> bool:
    """Run an input of i-PI as the program ``i-pi`` does, with an observer; arguments as for :func:`petdos_md.ipi.attach`.

    A signal (SIGTERM, SIGINT) ends the process from within i-PI, with a RESTART, the samples on disk, and status 0.

    :returns: whether i-PI ended without a problem
    :raises SettingError: if i-PI cannot start, or the input names the observer, too
    """
    from ipi.engine.simulation import Simulation
    from ipi.utils.softexit import softexit

    from ..engines.ipi.hook import has_hook
    from ..engines.ipi.observer import attach, check_start

    def before_files(simulation: Any) -> None:
        if has_hook(simulation):
            raise SettingError(
                f"{path}: names petdos_observer.py itself; run it with `i-pi {path}`, or take that element out"
            )
        check_start(output, int(simulation.step))

    try:
        with open(path) as file:
            simulation = Simulation.load_from_xml(file, request_banner=True, post_init_hook=before_files)
    except (PetdosError, OSError):
        raise
    except Exception as error:  # i-PI says what is wrong in many ways
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise SettingError(f"{path}: i-PI cannot start it ({reason}); fix the input, see above") from error
    observer = attach(simulation, model, output, every=every, burn_in=burn_in, max_failed=max_failed, previous=previous)
    # From here on as the program i-pi: after a signal, cleaning up is followed by the end of the process.
    softexit.hard_exit = True
    simulation.run()
    softexit.cleanup(status=simulation.exit_status, message=simulation.exit_message)
    softexit.reset()  # else i-PI would end the process with status 0, whatever is wrong
    observer.close()
    return bool(simulation.exit_status == "success")
