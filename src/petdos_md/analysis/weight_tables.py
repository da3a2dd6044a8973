"""Tables of weights as text, see :mod:`petdos_md.analysis.weights`.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "COLVAR"
>>> _ = path.write_text("#! FIELDS step bias weight\\n0 7.0 0.5\\n10 9.0 1.5\\n")
>>> read_table(path).values
{(0, 0): 0.5, (0, 10): 1.5}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base.errors import SettingError

COLUMNS = ("step", "weight", "log_weight", "replica", "trace")
"""Columns that mean something here; others are left alone."""


@dataclass(frozen=True)
class WeightTable:
    """What a table says.

    :param values: by (replica, step), or by (trace, replica, step)
    :param are_logarithms: whether they are those of ``log_weight``
    """

    values: dict[tuple[int, int] | tuple[str, int, int], float]
    are_logarithms: bool


def read_table(path: Path) -> WeightTable:
    """Read a table.

    :raises SettingError: if the file is missing, is no text, or does not have a weight for each step that it lists
    """
    lines = _lines(path)
    names = _header(path, lines)
    values: dict[tuple[int, int] | tuple[str, int, int], float] = {}
    kind = "weight" if "weight" in names else "log_weight"
    for number, line in lines[1:]:
        if line.startswith("#"):
            # PLUMED writes its header again where a run was continued.
            if line.startswith("#! FIELDS") and _names(line) != names:
                raise SettingError(
                    f"{path}: line {number} has another header than the first; expected one for all lines"
                )
            continue
        row = _cells(line)
        if len(row) != len(names):
            raise SettingError(
                f"{path}: line {number} has {len(row)} columns, the header names {len(names)} ({' '.join(names)}); expected the same number"
            )
        cells = dict(zip(names, row, strict=True))
        step, replica = (_whole(path, number, name, cells.get(name, "0")) for name in ("step", "replica"))
        key = (cells["trace"], replica, step) if "trace" in cells else (replica, step)
        if key in values:
            raise SettingError(f"{path}: step {step} (replica {replica}) is listed twice; expected one line per frame")
        values[key] = _number(path, number, kind, cells[kind])
    if not values:
        raise SettingError(f"{path}: a header without lines, expected a line per frame")
    return WeightTable(values, kind == "log_weight")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    if not path.is_file():
        raise SettingError(f"{path}: no such table of weights; give a file with the columns step and weight")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingError(
            f"{path}: cannot be read ({what}); give a text file with the columns step and weight"
        ) from None
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in numbered if line]


def _header(path: Path, lines: list[tuple[int, str]]) -> list[str]:
    names = _names(lines[0][1]) if lines else []
    weights = [name for name in ("weight", "log_weight") if name in names]
    if len(weights) != 1 or "step" not in names:
        raise SettingError(
            f"{path}: expected a header with step and weight (or log_weight) and a line per frame, got "
            f"{' '.join(names)[:80] or 'nothing'}"
        )
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise SettingError(f"{path}: the header names {twice[0]} twice, expected once")
    return names


def _names(line: str) -> list[str]:
    return [name.lower() for name in _cells(line.removeprefix("#!").lstrip().removeprefix("FIELDS").lstrip("# "))]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")] if "," in line else line.split()


def _number(path: Path, number: int, name: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise SettingError(f"{path}: line {number} has {name} {cell!r}, not a table of numbers") from None


def _whole(path: Path, number: int, name: str, cell: str) -> int:
    value = _number(path, number, name, cell)
    if not value.is_integer():
        raise SettingError(f"{path}: line {number} has {name} {cell}, expected a whole number")
    return int(value)
