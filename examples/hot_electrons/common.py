"""What the examples of hot electrons have in common: the options of their command lines, and the folder for what they write."""

from __future__ import annotations

import argparse
from pathlib import Path


def new_parser(description: str) -> argparse.ArgumentParser:
    """A command line with a model and a folder.

    :param description: the docstring of the example, whose first line is shown
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--model", default="almgsi-lda")
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/hot_electrons"))
    return parser


def add_dynamics(parser: argparse.ArgumentParser, steps: int, lattice: float) -> None:
    """Options of a run of a repeated cubic cell.

    :param steps, lattice: defaults, the latter in angstrom
    """
    parser.add_argument("--temperature", type=float, default=300.0, help="of the atoms at the start, K")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--timestep", type=float, default=2.0, help="fs")
    parser.add_argument("--lattice", type=float, default=lattice, help="angstrom")
    parser.add_argument("--repeat", type=int, default=2)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; the folder is made."""
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    return args
