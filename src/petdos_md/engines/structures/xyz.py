"""Frames of xyz files in all their dialects: extended xyz, i-PI, CP2K, LAMMPS, plain; one by one, so that a pipe will do.

>>> import io
>>> from .text import Lines
>>> text = b"1\\n# CELL(abcABC): 8 8 8 90 90 90 Step: 5 Bead: 0 positions{angstrom} cell{angstrom}\\nAl 1 2 3\\n"
>>> frame = next(read_xyz(Lines(io.BytesIO(text), "a.xyz"), Interpretation()))
>>> frame.atoms.cell.lengths().tolist(), frame.atoms.info["step"]
([8.0, 8.0, 8.0], '5')
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import ase.io.extxyz
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell

from ...base.errors import SettingError
from .interpretation import UNITS, Frame, Interpretation
from .symbols import Element, elements, set_masses
from .text import FrameError, Lines, without_d_exponents

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
_IPI_CELL = re.compile(rf"CELL[(\[{{](abcABC|H|GENH)[)\]}}]:((?:\s+{_NUMBER})+)")
_IPI_QUANTITY = re.compile(r"\b(\w+)\{(\w+)\}")
_IPI_POSITIONS = ("positions", "x_centroid", "unwrapped_positions")
_CP2K = re.compile(rf"^\s*i\s*=\s*(\d+|\*+),\s*time\s*=\s*({_NUMBER}|\*+)(?:,\s*E\s*=\s*({_NUMBER}))?")
_CP2K_CELL = re.compile("".join(rf",\s*{name}\s*=\s*({_NUMBER})" for name in ("a", "b", "c", "alpha", "beta", "gamma")))
_CP2K_OTHERS = re.compile(r"-(vel|frc)-\d+\.xyz")
_LAMMPS = re.compile(r"^\s*Atoms\.\s+Timestep:\s*(\d+)")
_PROPERTIES = re.compile(r"""Properties\s*=\s*["']?([\w:]+)""")
_KEYS = {key.lower(): key for key in ("Lattice", "Properties", "pbc")}
_COLUMNS = {"species": "species", "pos": "pos", "z": "Z", "element": "species", "positions": "pos", "position": "pos"}
"""Names of columns, and what others call them."""
_OTHER_CELLS = ("cell", "box", "unitcell", "unit_cell", "cell_vectors", "lattice_vectors")


def read_xyz(lines: Lines, how: Interpretation) -> Iterator[Frame]:
    """All frames; blank lines between them are skipped.

    :raises FrameError: if a frame is cut or no frame; those before it were yielded
    """
    number = 0
    while (head := lines.next_with_words()) is not None:
        where = f"{lines.where}: frame {number}"
        n_atoms = _count(head, lines, number)
        comment = lines.next()
        rows: list[str] = []
        while comment is not None and len(rows) < n_atoms and (row := lines.next()) is not None:
            rows.append(row)
        if comment is None or len(rows) < n_atoms or (lines.unfinished and _last_is_short(rows)):
            whole = len(rows) - (1 if rows and lines.unfinished else 0)
            why = f" ({lines.damage})" if lines.damage else ""
            raise FrameError(lines.where, number, f"is cut: {whole} of its {n_atoms} atoms are there{why}")
        vectors = _pseudo_atoms(lines)
        try:
            yield _frame(comment, rows, vectors, how, where)
        except SettingError:
            raise
        except Exception as error:  # whatever ASE's parser says to a comment or a row
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FrameError(lines.where, number, f"is no frame of an xyz file ({reason})") from None
        number += 1
    if lines.damage:
        raise FrameError(lines.where, number, f"is missing: {lines.damage}")


def _count(head: str, lines: Lines, number: int) -> int:
    try:
        n_atoms = int(head)
    except ValueError:
        n_atoms = -1
    if n_atoms < 0:
        shown = head.strip()[:40]
        raise FrameError(
            lines.where,
            number,
            f"does not begin with its number of atoms: line {lines.number} is {shown!r}; look for lines too many or too few before it",
        )
    return n_atoms


def _last_is_short(rows: list[str]) -> bool:
    """Whether the last number of a file without a line end at its end lost digits: all others in its column have more."""
    last, others = rows[-1].split(), [row.split() for row in rows[:-1]]
    if not others or any(len(row) != len(others[0]) for row in others):
        return False
    if len(last) < len(others[0]):
        return True
    digits = {len(row[-1].partition(".")[2]) for row in others}
    return len(digits) == 1 and len(last[-1].partition(".")[2]) < digits.pop()


def _pseudo_atoms(lines: Lines) -> list[str]:
    """Cell vectors that stand behind the atoms, as in ADF's files: VEC1, VEC2, VEC3."""
    found: list[str] = []
    while (line := lines.next()) is not None and line.lstrip().startswith("VEC"):
        found.append(line)
    lines.push_back(line)
    return found


def _frame(comment: str, rows: list[str], vectors: list[str], how: Interpretation, where: str) -> Frame:
    quantity = _IPI_QUANTITY.search(comment)
    if "CELL(" in comment or _IPI_CELL.search(comment) or (quantity and comment.lstrip().startswith("#")):
        return _ipi(comment, rows, how, where)
    comment = re.sub(r"\b(Lattice|Properties|pbc)(?=\s*=)", lambda m: _KEYS[m[0].lower()], comment, flags=re.IGNORECASE)
    if _PROPERTIES.search(comment) is None and "Lattice" not in comment and not vectors:
        for pattern, labels in ((_CP2K, _cp2k_labels), (_LAMMPS, _lammps_labels)):
            if (match := pattern.match(comment)) is not None:
                atoms = _plain(rows, how, where, how.length_A(None, where))
                states_pbc = labels(atoms, match, where)
                return Frame(atoms, states_pbc)
    return _extended(comment, rows, vectors, how, where)


def _ipi(comment: str, rows: list[str], how: Interpretation, where: str) -> Frame:
    unit: dict[str, str] = {m[1]: m[2] for m in _IPI_QUANTITY.finditer(comment)}
    name = next((key for key in unit if key != "cell"), None)
    if name is not None and name not in _IPI_POSITIONS:
        raise SettingError(f"{where} holds {name} of i-PI, expected positions; give that file")
    cell = _IPI_CELL.search(comment)
    if cell is None and "CELL" in comment:
        raise SettingError(f"{where} has a cell that is no numbers ({comment.strip()[:60]!r}); mend the file")
    if how.units is None and (name is None or (cell is not None and "cell" not in unit)):
        raise SettingError(f"{where} is of i-PI but does not give its units; give --units angstrom or atomic_unit")
    length = how.length_A(unit.get(name) if name is not None else None, where)
    atoms = _plain(rows, how, where, length)
    if cell is not None:
        numbers = [float(without_d_exponents(x)) for x in cell[2].split()]
        if len(numbers) < (6 if cell[1] == "abcABC" else 9):
            raise SettingError(f"{where} has a cell of {len(numbers)} numbers; expected 6 (abcABC) or 9")
        length = how.length_A(unit.get("cell"), where)
        if cell[1] == "abcABC":
            vectors = np.asarray(cellpar_to_cell([*(length * x for x in numbers[:3]), *numbers[3:6]]))
        else:
            vectors = length * np.array(numbers[:9]).reshape(3, 3)
            vectors = vectors.T if cell[1] == "H" else vectors  # i-PI has the vectors as columns in H, as rows in GENH
        atoms.cell, atoms.pbc = vectors, True
    step = re.search(r"\bStep:\s*(\S+)", comment)
    if step is not None:
        atoms.info["step"] = step[1]
    return Frame(atoms, states_pbc=cell is not None)


def _cp2k_labels(atoms: Atoms, match: re.Match[str], where: str) -> bool:
    """Step, time, energy, and the cell that ``dumpdcd`` writes; whether there is one.

    :raises SettingError: for a file of velocities or forces, which look the same
    """
    other = _CP2K_OTHERS.search(where)
    if other is not None:
        what = {"vel": "velocities", "frc": "forces"}[other[1]]
        raise SettingError(
            f"{where} holds {what} of CP2K by its name, expected positions; give that file, or rename it"
        )
    atoms.info.update(step=match[1], time_fs=without_d_exponents(match[2]))
    cell = _CP2K_CELL.search(match.string)
    if cell is not None:
        atoms.cell, atoms.pbc = cellpar_to_cell([float(without_d_exponents(x)) for x in cell.groups()]), True
    if match[3] is not None:
        energy = float(without_d_exponents(match[3])) * units.Hartree
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return cell is not None


def _lammps_labels(atoms: Atoms, match: re.Match[str], where: str) -> bool:
    atoms.info["step"] = match[1]
    return False


def _plain(rows: list[str], how: Interpretation, where: str, length_A: float) -> Atoms:
    """Element and position; further columns are left alone."""
    table = [row.split() for row in rows]
    bad = next((i for i, row in enumerate(table) if len(row) < 4), None)
    if bad is not None:
        raise SettingError(f"{where}, atom {bad + 1}: got {rows[bad].strip()[:60]!r}, expected an element and x y z")
    found = elements([row[0] for row in table], how.types, where)
    try:
        positions = np.array([[float(without_d_exponents(x)) for x in row[1:4]] for row in table]).reshape(-1, 3)
    except ValueError as error:
        raise SettingError(
            f"{where} has positions that are no numbers ({error}); restore the file from a copy"
        ) from None
    atoms = Atoms([e.symbol for e in found], positions=length_A * positions)
    set_masses(atoms, found)
    return atoms


def _extended(comment: str, rows: list[str], vectors: list[str], how: Interpretation, where: str) -> Frame:
    """Extended xyz, by ASE, after the column of elements has become symbols."""
    match = _PROPERTIES.search(comment)
    columns = "species:S:1:pos:R:3" if match is None else match[1]
    parts = columns.split(":")
    parts[::3] = [_COLUMNS.get(name.lower(), name) for name in parts[::3]]
    comment = comment if match is None else comment.replace(columns, ":".join(parts), 1)
    names, widths = parts[::3], parts[2::3]
    _check_comment(comment, where)
    if len(parts) % 3 or "pos" not in names or not {"species", "Z"} & set(names):
        raise SettingError(f"{where} has the columns {columns}, expected species (or Z) and pos among them")
    starts = dict(zip(names, np.cumsum([0, *map(int, widths)]).tolist(), strict=False))
    width = sum(map(int, widths))
    table = [without_d_exponents(row).split() for row in rows]
    bad = next((i for i, row in enumerate(table) if len(row) < width), None)
    if bad is not None:
        raise SettingError(f"{where}, atom {bad + 1}: got {len(table[bad])} columns, expected {width} ({columns})")
    found: list[Element] = []
    if "species" in names:
        at = starts["species"]
        found = elements([row[at] for row in table], how.types, where)
        if "Z" in names:
            _check_numbers([e.symbol for e in found], [row[starts["Z"]] for row in table], where)
        table = [[*row[:at], e.symbol, *row[at + 1 :]] for row, e in zip(table, found, strict=True)]
    comment = re.sub(r'Lattice\s*=\s*"[^"]*"', lambda m: without_d_exponents(m[0]), comment)
    if "=" not in comment:
        comment = ""  # words for people, in which ASE would see labels
    text = "\n".join([str(len(rows)), comment, *map(" ".join, table), *vectors, ""])
    atoms = next(ase.io.extxyz.read_xyz(io.StringIO(text), slice(0, 1)))
    for key in [
        key for key, value in atoms.info.items() if value is True and not re.search(rf"\b{re.escape(key)}\s*=", comment)
    ]:
        del atoms.info[key]  # a bare word
    if found:
        set_masses(atoms, found)
    factor = how.length_A(None, where)
    if factor != 1.0:
        atoms.set_cell(factor * atoms.cell.array)
        atoms.positions *= factor
    _lammps_names(atoms.info, how)
    return Frame(atoms, states_pbc=bool(vectors) or re.search(r"\bpbc\s*=|\bLattice\s*=", comment) is not None)


def _check_comment(comment: str, where: str) -> None:
    """Keys that change what the numbers mean, and that nobody would miss until the results are wrong.

    :raises SettingError: if there are such keys
    """
    cell = re.search(rf"\b({'|'.join(_OTHER_CELLS)})\s*=", comment, re.IGNORECASE)
    if cell is not None and "Lattice" not in comment:
        raise SettingError(
            f"{where} has {cell[1]}= in place of Lattice=; rename it if these are three vectors in angstrom, or give --cell"
        )
    if re.search(r"\b(fractional|scaled|direct)\s*=\s*[\"']?(T|1|yes)", comment, re.IGNORECASE):
        raise SettingError(
            f"{where} says that its positions are fractions of the cell, expected angstrom; convert the file"
        )


def _check_numbers(symbols: list[str], numbers: list[str], where: str) -> None:
    for i, (symbol, number) in enumerate(zip(symbols, numbers, strict=True)):
        if number.isdigit() and atomic_numbers[symbol] != int(number):
            raise SettingError(
                f"{where}, atom {i + 1} is {symbol} by its species and {number} by its Z; leave one of the columns out"
            )


def _lammps_names(info: dict[str, Any], how: Interpretation) -> None:
    """``dump extxyz`` calls the step Timestep, and the time, in the unit of its style, Time; i-PI has a comment of its own."""
    if "Step" in info:  # of CP2K
        info.setdefault("step", info["Step"])
    if "Timestep" in info and "step" not in info:
        info["step"] = info["Timestep"]
    if "step" not in info and (told := re.search(r"\bStep:\s*(\S+)", str(info.get("ipi_comment", "")))):
        info["step"] = told[1]
        time_fs = None if how.units is None else UNITS[how.units].time_fs
        if time_fs is not None and isinstance(info.get("Time"), float):
            info.setdefault("time_fs", float(info["Time"]) * time_fs)
