"""Options of commands that read structures: what a file does not say of them.

>>> from .arguments import Parser
>>> parser = Parser()
>>> add_reading(parser)
>>> interpretation(parser.parse_args(["--species", "Al,Mg", "--cell", "4", "4", "8"])).vectors_A.tolist()
[[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 8.0]]
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import completes

if TYPE_CHECKING:
    from ..engines.structures.interpretation import Interpretation


def add_reading(parser: argparse.ArgumentParser) -> None:
    """The options."""
    group = parser.add_argument_group("what the file does not say")
    group.add_argument("--format", metavar="F", help="ASE's name of the file format (default: as the file shows)")
    group.add_argument("--species", metavar="Al,Mg", help="elements of types 1, 2, ...; or by label, as in 1=Al,B=Mg")
    group.add_argument(
        "--cell",
        nargs="+",
        metavar="X",
        help="for frames without a cell: A B C (angstrom) alpha beta gamma (degrees), nine numbers, or a file with that cell",
    )
    group.add_argument(
        "--pbc", metavar="xyz", help="periodic directions, or none (default: as the file says; all with --cell)"
    )
    group.add_argument(
        "--units", metavar="U", help="angstrom, bohr, ..., or a style of LAMMPS: metal, real, electron, ..."
    )
    completes(
        group.add_argument("--topology", metavar="FILE", help="a structure with the elements of XTC, DCD or NetCDF"),
        "file",
    )


def interpretation(args: argparse.Namespace) -> Interpretation:
    """What they say.

    :raises SettingError: if it makes no sense
    """
    from ..engines.structures.interpretation import Interpretation

    cell = args.cell
    if cell is not None:
        try:
            cell = [float(word) for word in cell]
        except ValueError:
            if len(cell) > 1:
                raise SettingError(f"got --cell {' '.join(cell)}, expected numbers or one file") from None
            cell = cell[0]
    return Interpretation(species=args.species, cell=cell, pbc=args.pbc, units=args.units, topology=args.topology)
