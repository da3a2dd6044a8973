"""Frames of text dumps of LAMMPS (``dump custom``, ``dump atom``), one by one, atoms by their ids.

>>> import io
>>> from .text import Lines
>>> text = '''ITEM: TIMESTEP
... 5
... ITEM: NUMBER OF ATOMS
... 1
... ITEM: BOX BOUNDS pp pp pp
... 0 4
... 0 4
... 0 4
... ITEM: ATOMS id type xs ys zs
... 1 1 0.5 0.5 0
... '''
>>> frame = next(read_dump(Lines(io.BytesIO(text.encode()), "a.lammpstrj"), Interpretation(species="Al")))
>>> frame.atoms.positions.tolist(), frame.atoms.info["step"]
([[2.0, 2.0, 0.0]], '5')
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms, units

from ...base.errors import SettingError
from .interpretation import UNITS, Frame, Interpretation
from .symbols import Element, elements, set_masses
from .text import FrameError, Lines

logger = logging.getLogger(__name__)

_COORDINATES = (("x", "y", "z"), ("xu", "yu", "zu"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))
_VELOCITIES = ("vx", "vy", "vz")


@dataclass
class _Parts:
    """What a frame of a dump says, in words."""

    step: str = ""
    time: str | None = None
    bounds: str = ""
    box: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)


def read_dump(lines: Lines, how: Interpretation) -> Iterator[Frame]:
    """All frames.

    :raises FrameError: if a frame is cut or no frame; those before it were yielded
    """
    number, file_units = 0, None
    while (line := lines.next_with_words()) is not None:
        parts = _Parts()
        try:
            while not line.startswith("ITEM: ATOMS"):
                if line.startswith("ITEM: UNITS"):
                    file_units = _line(lines).strip()
                else:
                    _header(line, lines, parts)
                line = _line(lines)
            parts.columns = line.split()[2:]
            parts.rows = [_line(lines) for _ in range(int(parts.rows[0]))]
        except (_Cut, IndexError, ValueError) as error:
            why = lines.damage or (str(error) if isinstance(error, _Cut) else f"line {lines.number} is {line[:40]!r}")
            raise FrameError(lines.where, number, f"is cut or no frame of a dump: {why}") from None
        if lines.unfinished:
            raise FrameError(lines.where, number, "is cut: its last line has no end")
        yield _frame(parts, how, file_units, f"{lines.where}: frame {number}")
        number += 1
    if lines.damage:
        raise FrameError(lines.where, number, f"is missing: {lines.damage}")


class _Cut(Exception):
    """The file ended within a frame."""


def _line(lines: Lines) -> str:
    line = lines.next()
    if line is None:
        raise _Cut(f"the file ends in line {lines.number}")
    return line


def _header(line: str, lines: Lines, parts: _Parts) -> None:
    """One item before the atoms; ``rows`` holds their number until they come."""
    if line.startswith("ITEM: TIMESTEP"):
        parts.step = _line(lines).strip()
    elif line.startswith("ITEM: TIME"):
        parts.time = _line(lines).strip()
    elif line.startswith("ITEM: NUMBER OF ATOMS"):
        parts.rows = [_line(lines)]
    elif line.startswith("ITEM: BOX BOUNDS"):
        parts.bounds = line.removeprefix("ITEM: BOX BOUNDS").strip()
        parts.box = [_line(lines) for _ in range(3)]
    else:
        raise _Cut(f"line {lines.number} is {line[:40]!r}, expected an ITEM of a dump of atoms")


def _frame(parts: _Parts, how: Interpretation, file_units: str | None, where: str) -> Frame:
    if any(row.startswith("ITEM:") for row in parts.rows):
        raise SettingError(f"{where} is cut: the next frame begins among its atoms; take the frames before by --index")
    n = len(parts.columns)
    if n == 0:
        raise SettingError(f"{where} does not name its columns, expected ITEM: ATOMS id type x y z or the like")
    table = [row.split() for row in parts.rows]
    if any(len(row) != n for row in table):
        raise SettingError(f"{where} has a row that is not of {n} columns; restore the file from a copy")
    if file_units == "lj" or (file_units is not None and file_units not in UNITS):
        raise SettingError(f"{where} is in units of {file_units}, expected those of a real substance, such as metal")
    columns = {name: [row[i] for row in table] for i, name in enumerate(parts.columns)}
    try:
        cell, origin, periodic = _cell(parts.bounds, parts.box)
        positions, fractional = _positions(columns, where)
        order = _order(columns, where)
        velocities = _columns(columns, _VELOCITIES)
        time = None if parts.time is None else float(parts.time)
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError(f"{where} has text in place of a number ({error}); restore the file from a copy") from None
    length = how.length_A(file_units, where)
    positions = origin + positions @ cell if fractional else positions
    every = _elements(columns, how, where)
    found = [every[i] for i in order]
    atoms = Atoms([e.symbol for e in found], length * positions[order], cell=length * cell, pbc=periodic)
    set_masses(atoms, found)
    atoms.info["step"] = parts.step
    unit = file_units or how.units
    time_fs = None if unit is None else UNITS[unit].time_fs
    if time_fs is not None and time is not None:
        atoms.info["time_fs"] = time * time_fs
    if (
        time_fs is not None and velocities is not None and unit != "electron"
    ):  # whose velocities are per atomic unit of time
        atoms.set_velocities(velocities[order] * length / (time_fs * units.fs))
    return Frame(atoms)


def _cell(bounds: str, box: list[str]) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Vectors, origin and periodic directions.

    https://docs.lammps.org/Howto_triclinic.html: a restricted triclinic box is stored as the bounds of the box around it, a general one
    as vectors with their origin in the last column.
    """
    rows = np.array([[float(x) for x in line.split()] for line in box])
    words = bounds.split()
    periodic = [word.startswith("p") for word in words if word in {a + b for a in "pfsm" for b in "pfsm"}]
    if len(periodic) != 3:
        periodic = [True, True, True]  # of versions before 2010, whose boxes did not say
    if bounds.startswith("abc origin"):
        return rows[:, :3], rows[:, 3], periodic
    low, high = rows[:, 0].copy(), rows[:, 1].copy()
    xy, xz, yz = rows[:, 2] if rows.shape[1] == 3 else (0.0, 0.0, 0.0)
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    size = high - low
    return np.array([[size[0], 0, 0], [xy, size[1], 0], [xz, yz, size[2]]]), low, periodic


def _positions(columns: dict[str, list[str]], where: str) -> tuple[np.ndarray, bool]:
    """Positions, and whether they are fractions of the cell."""
    for names in _COORDINATES:
        found = _columns(columns, names)
        if found is not None:
            return found, names[0].startswith("xs")
    raise SettingError(f"{where} has the columns {' '.join(columns)}, expected positions: x y z, xu yu zu or xs ys zs")


def _columns(columns: dict[str, list[str]], names: tuple[str, ...]) -> np.ndarray | None:
    if not all(name in columns for name in names):
        return None
    return np.array([columns[name] for name in names], dtype=float).T.reshape(-1, 3)


def _order(columns: dict[str, list[str]], where: str) -> np.ndarray:
    """Rows by their ids; as they come if there are none."""
    if "id" not in columns:
        return np.arange(len(next(iter(columns.values()))))
    ids = np.array(columns["id"], dtype=float)
    if len(np.unique(ids)) < len(ids):
        raise SettingError(f"{where} holds an atom twice (column id); restore the file from a copy")
    return np.argsort(ids, kind="stable")


def _elements(columns: dict[str, list[str]], how: Interpretation, where: str) -> list[Element]:
    """Elements of all rows: by ``--species`` of types if it is given, else by the column element."""
    types = columns.get("type", [])
    if how.types is not None and types:
        labels = types
    elif "element" in columns:
        labels = columns["element"]
        if set(labels) == {"C"} and len(set(types)) > 1:
            logger.warning(
                "%s: all atoms are C, as LAMMPS writes where `dump_modify element` was not given, but of several types; "
                "if they are not carbon, give --species",
                where,
            )
    elif "typelabel" in columns:
        labels = columns["typelabel"]
    elif types:
        labels = types
    else:
        raise SettingError(f"{where} has the columns {' '.join(columns)}, expected element or type; dump one of them")
    return elements(labels, how.types, where)
