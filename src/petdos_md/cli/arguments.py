"""Arguments that several commands share, and what they mean: traces, models, electrons, results, temperatures.

>>> parse_temperatures("100:300:100")
[100.0, 200.0, 300.0]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from ..base.errors import SettingError

if TYPE_CHECKING:
    from ..models.model import DOSModel

_Number = TypeVar("_Number", int, float)

# NumPy and torch take a while to import: what needs them is imported in functions, so that --help answers at once.

BARE = ("auto", "all")
"""What options whose value is left out are taken for."""
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """A parser with options whose value may be left out.

    argparse gives such an option the next word, be it a trace. Here the value belongs to it only after ``=``.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)
        self._if_bare: dict[str, str] = {}

    def add_optional_value(self, name: str, if_bare: str, **keywords: Any) -> None:
        """Add the option ``name``, which is None if absent and ``if_bare`` without a value."""
        self.add_argument(name, nargs="?", type=_not_empty, **keywords)
        self._if_bare[name] = f"{name}={if_bare}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse, after bare options were given their values."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        complete = [self._if_bare.get(word, word) for word in words[:end]] + words[end:]
        result, rest = super().parse_known_args(complete, namespace)
        for name, word in pairwise(words[:end]):
            if name in self._if_bare and word in rest:
                self.error(f"got {name} {word}; join a value by =, as in {name}={word}, and put traces side by side")
        return result, rest

    def error(self, message: str) -> NoReturn:
        """One line; the usage of a command with many options is longer than a screen."""
        self.exit(2, f"petdos: error: {' '.join(message.split())}; see `{self.prog} --help`\n")


def new_command(
    commands: Commands, name: str, description: str, example: str, run: Callable[[argparse.Namespace], int]
) -> Parser:
    """The parser of a command.

    :param description: its first line is shown in the list of commands
    :param run: called with the arguments; returns the exit status
    """
    parser = commands.add_parser(
        name,
        help=description.splitlines()[0].rstrip("."),
        description=description,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(func=run)
    return parser


def completes(action: argparse.Action, what: str) -> None:
    """Let shells complete an argument.

    :param what: ``file`` or ``directory``
    """
    action.complete = what  # type: ignore[attr-defined]  # read by shtab


def add_path(parser: argparse.ArgumentParser, *names: str, folder: bool = False, **keywords: Any) -> None:
    """An argument that is a file or, with ``folder``, a folder (as a trace)."""
    completes(parser.add_argument(*names, type=_path, **keywords), "directory" if folder else "file")


def add_traces(parser: argparse.ArgumentParser) -> None:
    """What every analysis of traces understands: traces, their model, which of their frames."""
    add_path(parser, "traces", nargs="+", metavar="X.zarr", folder=True, help="one trace, or several of the same model")
    add_path(parser, "--model", metavar="M", help="the model, if it is no longer where the trace says")
    parser.add_argument(
        "--burn-in",
        type=_burn_in,
        default=0,
        metavar="STEPS",
        help="leave out earlier steps; auto: of each replica, the beginning that drifts",
    )
    parser.add_argument("--temperature", nargs="+", metavar="T", help="these only, K: numbers, or FIRST:LAST:STEP")
    parser.add_argument("--replica", type=int, nargs="+", metavar="N", help="these only")
    parser.add_argument(
        "--steps", type=steps_from_to, metavar="FROM:TO", help="these only, both included; either may be left out"
    )
    parser.add_argument(
        "--electronic-range",
        type=kelvin_from_to,
        metavar="FROM:TO",
        help="frames among hot electrons of these temperatures only, K; either may be left out",
    )
    add_path(
        parser,
        "--weights",
        metavar="FILE",
        action="append",
        help="table of step (replica, trace) weight, in place of the trace's own; without a column trace, once for each trace",
    )


def choose_weights(tables: list[str] | None) -> str | list[str] | None:
    """The argument ``weights`` of the analysis."""
    return tables[0] if tables and len(tables) == 1 else tables


def add_denoise(parser: Parser, default: str | None = None) -> None:
    """How frames are denoised; with a default they always are."""
    parser.add_optional_value(
        "--denoise",
        if_bare="auto",
        default=default,
        metavar="HOW",
        help="denoise every frame and member (Eqs. 11-16 of the article); the Fermi level is that of the integral of the raw DOS "
        "(also --denoise=integration), of the network beside the model (--denoise=network, as in the article), or of the "
        "network in a file (--denoise=FILE)",
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Where results go."""
    add_path(parser, "-o", "--output", required=True, metavar="OUT", folder=True, help="folder for the results")
    parser.add_argument("--no-plots", action="store_true", help="write the data only")


def add_references(parser: argparse.ArgumentParser) -> None:
    """Structures of a reference calculation."""
    add_path(parser, "dataset", metavar="DATASET", help="any file that ASE reads, also compressed")
    parser.add_argument(
        "--where", metavar="CONDITION", help="only structures with key=value or key%%number=value in info"
    )


def add_model(parser: argparse.ArgumentParser, device: bool = True) -> None:
    """The model as the first argument."""
    add_path(parser, "model", metavar="MODEL", help="a shipped model or a .pt file")
    add_electrons(parser)
    if device:
        add_device(parser)


def add_dos(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """The model as an option, beside a potential that moves the atoms."""
    add_path(parser, "--dos", required=required, metavar="M", help="the DOS model: a shipped model or a .pt file")
    add_electrons(parser)
    add_device(parser)


def add_electrons(parser: argparse.ArgumentParser) -> None:
    """Valence electrons of models that do not know them."""
    parser.add_argument("--electrons", metavar="Al=3,...", help="valence electrons, if the model does not know them")


def add_device(parser: argparse.ArgumentParser) -> None:
    """What evaluates the model."""
    parser.add_argument("--device", metavar="D", help="cpu or cuda (default: what the model prefers)")


def load_model(name: str, args: argparse.Namespace) -> DOSModel:
    """The model of a name or path, with the options that every command with a model has."""
    from ..base.electrons import parse_electrons
    from ..models.model import DOSModel

    return DOSModel.load(name, args.device, electrons=parse_electrons(args.electrons))


def check_traces(traces: Sequence[str], **optional_values: str | None) -> None:
    """Find values that were meant for an option but, without ``=``, are taken for traces.

    :param optional_values: values of the options of :meth:`Parser.add_optional_value`, by name
    :raises SettingError: if there are any
    """
    for name, value in optional_values.items():
        if value not in BARE:
            continue
        for trace in traces:
            if not Path(trace).is_dir() and _may_be_a_value(name, trace):
                raise SettingError(f"{trace}: no such trace; join a value of --{name} by =, as in --{name}={trace}")


def tell_if_new(resume: bool, output: str, exists: bool) -> None:
    """Say that there is nothing to resume: the path may be mistyped."""
    if resume and not (exists or os.path.lexists(os.path.expanduser(output))):
        print(f"petdos: warning: nothing to resume at {output}; starts anew", file=sys.stderr)


def choose_denoising(value: str | None) -> bool | str:
    """The argument ``denoise`` of the analysis."""
    return True if value == "auto" else value or False


def steps_from_to(text: str) -> tuple[int | None, int | None]:
    """``1000:5000``, ``1000:`` or ``:5000``, for argparse."""
    return _from_to(text, int, "FROM:TO, as in 1000:5000 or 1000:")


def kelvin_from_to(text: str) -> tuple[float | None, float | None]:
    """``5000:9000``, ``5000:`` or ``:9000``, for argparse."""
    return _from_to(text, float, "FROM:TO in K, as in 5000:9000 or 5000:")


def _from_to(text: str, number: Callable[[str], _Number], expected: str) -> tuple[_Number | None, _Number | None]:
    first, colon, last = text.partition(":")
    try:
        limits = number(first) if first else None, number(last) if last else None
    except ValueError:
        colon = ""
    if not colon:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return limits


def joined(words: list[str] | None) -> str | None:
    """Numbers side by side as :func:`parse_temperatures` wants them."""
    return ",".join(words) if words else None


def parse_temperatures(text: str | None, zero: bool = False) -> list[float] | None:
    """``300,600``, ``100:2000:100`` (the last one included) or both, ``20,100:2000:100``, as a list.

    :param zero: whether 0 K is one, too
    :raises SettingError: if it is something else
    """
    if text is None:
        return None
    numbers = [number for part in text.split(",") for number in _range(part)]
    if not all(0 < x < math.inf or (zero and x == 0) for x in numbers):
        allowed = "0 or more" if zero else "all positive"
        raise SettingError(f"got the temperatures {text}, expected T1,T2,... or FIRST:LAST:STEP in K, {allowed}")
    return numbers


def _range(text: str) -> list[float]:
    """Numbers of one number or FIRST:LAST:STEP; NaN for something else."""
    try:
        numbers = [float(x) for x in text.split(":")]
    except ValueError:
        return [math.nan]
    if len(numbers) == 1:
        return numbers
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)) or not (numbers[2] > 0 and numbers[1] >= numbers[0]):
        return [math.nan]
    first, last, step = numbers
    return [first + k * step for k in range(int((last - first) / step + 1e-9) + 1)]


def _burn_in(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of steps or auto") from None


def _path(text: str) -> str:
    if not text:  # a variable of a script that is not set, and no name of the present folder
        raise argparse.ArgumentTypeError("got an empty name, expected that of a file or folder")
    return text


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a value after =")
    return text


def _may_be_a_value(option: str, word: str) -> bool:
    if option == "denoise":
        return word in ("network", "integration") or Path(word).is_file() or word.endswith((".pt", ".safetensors"))
    return all(c in "0123456789.,:" for c in word)
