"""Runs in one file that count their steps anew: each becomes a replica, and a frame that is there twice is one.

>>> runs = Runs()
>>> [runs.place(0, step, frame) for step, frame in ((0, "a"), (10, "b"), (10, "b"), (0, "c"), (10, "d"))]
[(0, False), (0, False), (0, True), (1, False), (1, False)]
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

import numpy as np
from ase import Atoms


class Runs:
    """What became of the steps that were seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], Hashable] = {}
        self._now: dict[int, int] = {}  # replica of the file -> replica of its present run
        self._taken: set[int] = set()
        self._begun: int | None = None

    def place(self, replica: int, step: int, frame: Hashable) -> tuple[int, bool]:
        """The replica of a frame, and whether the very frame was there before.

        A step that was there with another structure begins a new run, under the next replica that is free.

        :param replica: as the file says
        :param frame: tells structures apart, see :func:`digest`
        """
        if replica not in self._now:
            self._begin(replica, replica)
        key = (self._now[replica], step)
        if key in self._seen:
            if self._seen[key] == frame:
                return key[0], True
            self._begin(replica, max(self._taken) + 1)
            key = (self._now[replica], step)
        self._seen[key] = frame
        return key[0], False

    def is_new(self, replica: int) -> bool:
        """Whether the last frame began this run; false when asked again."""
        new, self._begun = self._begun == replica, None
        return new

    def _begin(self, replica: int, wanted: int) -> None:
        self._now[replica] = wanted if wanted not in self._taken else max(self._taken) + 1
        self._taken.add(self._now[replica])
        self._begun = self._now[replica]


def digest(atoms: Atoms) -> int:
    """A number that tells structures apart: elements, positions, cell and periodic directions."""
    content = hashlib.blake2b(digest_size=8)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        content.update(np.ascontiguousarray(array).tobytes())
    return int.from_bytes(content.digest())
