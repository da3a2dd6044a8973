"""Frames of VASP's XDATCAR, one by one, of fixed and of changing cells.

>>> import io
>>> from .text import Lines
>>> text = b"t\\n2.0\\n2 0 0\\n0 2 0\\n0 0 2\\nAl\\n1\\nDirect configuration=     1\\n0.5 0.5 0.25\\n"
>>> next(read_xdatcar(Lines(io.BytesIO(text), "XDATCAR"), Interpretation())).atoms.positions.tolist()
[[2.0, 2.0, 1.0]]
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from ase import Atoms

from ...base.errors import SettingError
from .interpretation import Frame, Interpretation
from .symbols import element
from .text import FrameError, Lines

_FRAME = re.compile(r"\s*(?:Direct configuration|Konfig)\s*=\s*(\d*)(\**)")
_FUSED = re.compile(r"(?<=\d)-")


def read_xdatcar(lines: Lines, how: Interpretation) -> Iterator[Frame]:
    """All frames; a header before a frame replaces the one before.

    :raises FrameError: if a frame is cut or no frame; those before it were yielded
    """
    number = 0
    steps = list[int]()
    cell, symbols = np.zeros((3, 3)), list[str]()
    while (line := lines.next_with_words()) is not None:
        try:
            if not _FRAME.match(line):
                cell, symbols = _header(lines, how)
                line = _line(lines)
            match = _FRAME.match(line)
            if not symbols:
                raise ValueError("a frame comes before the header with the cell and the elements")
            if match is None and line.strip():
                raise ValueError(f"line {lines.number} is {line[:40]!r}, expected Direct configuration=")
            rows = [_numbers(_line(lines), 3) for _ in symbols]
        except SettingError:
            raise
        except ValueError as error:
            raise FrameError(
                lines.where, number, f"is cut or no frame of an XDATCAR: {lines.damage or error}"
            ) from None
        if lines.unfinished:
            raise FrameError(lines.where, number, "is cut: its last line has no end")
        atoms = Atoms(symbols, cell=cell, pbc=True)
        atoms.set_scaled_positions(np.array(rows))
        if match is not None and match[1]:
            steps = [*steps[-1:], int(match[1])]
        elif match is not None and match[2]:
            steps = _next_steps(steps, f"{lines.where}: frame {number}")
        if match is not None and (match[1] or match[2]):
            atoms.info["step"] = str(steps[-1])
        yield Frame(atoms)
        number += 1
    if lines.damage:
        raise FrameError(lines.where, number, f"is missing: {lines.damage}")


def _next_steps(steps: list[int], where: str) -> list[int]:
    """VASP has six places for the step, and writes stars beyond 999999; its frames are evenly spaced.

    :raises SettingError: if the steps before are not known
    """
    if len(steps) < 2 or steps[1] <= steps[0]:
        raise SettingError(
            f"{where} has stars in place of its step, and no two frames before it give it; number the frames by hand"
        )
    return [steps[1], 2 * steps[1] - steps[0]]


def _header(lines: Lines, how: Interpretation) -> tuple[np.ndarray, list[str]]:
    """Cell and symbols; the title was read before.

    https://www.vasp.at/wiki/index.php/POSCAR: a negative scale is the volume of the cell; three are those of x, y and z.
    """
    words = _line(lines).split()
    scale = np.array([float(word) for word in words[: 3 if len(words) == 3 else 1]])
    cell = np.array([_numbers(_line(lines), 3) for _ in range(3)])
    if len(scale) == 1 and scale[0] < 0:
        scale = (-scale / abs(np.linalg.det(cell))) ** (1 / 3)
    if not (scale > 0).all():
        raise ValueError(f"scale factors {' '.join(words)}, expected one, or three positive ones")
    words = _line(lines).split()
    if all(word.isdigit() for word in words):  # VASP 4 names no elements
        counts, words = [int(word) for word in words], [str(i) for i in range(1, len(words) + 1)]
    else:
        counts = [int(word) for word in _line(lines).split()]
    try:
        found = [element(word.partition("/")[0], how.types).symbol for word in words]
    except ValueError as error:
        raise SettingError(f"{lines.where}: {error}") from None
    if len(found) != len(counts) or not found or min(counts) < 1:
        raise ValueError(f"{len(found)} elements with the numbers of atoms {counts}")
    return scale * cell, [symbol for symbol, n in zip(found, counts, strict=True) for _ in range(n)]


def _line(lines: Lines) -> str:
    line = lines.next()
    if line is None:
        raise ValueError(f"the file ends in line {lines.number}")
    return line


def _numbers(line: str, n: int) -> list[float]:
    words = line.split()
    if len(words) < n:  # fixed columns of Fortran, in which a minus sign takes the place of the blank
        words = _FUSED.sub(" -", line).split()
    if len(words) < n:
        raise ValueError(f"got {line[:40]!r}, expected {n} numbers")
    return [float(word) for word in words[:n]]
