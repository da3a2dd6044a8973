"""The sampled frames of a run in an ASE trajectory, cut back to the checkpoint when the run is resumed.

>>> with TrajectoryFile("run.traj", resume=True) as frames:                    # doctest: +SKIP
...     frames.keep(replica=1, step=200)
...     frames.write(atoms, replica=1, step=210, temperature_K=300.0)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory, TrajectoryReader

from ..base.errors import SettingError, TraceError


class TrajectoryFile:
    """Frames with their labels (replica, step, temperature_K, time_fs) in ``atoms.info``.

    :param path: ends in ``.traj``; None to write nothing
    :param resume: whether frames that are there belong to this run
    :raises SettingError: for another ending
    :raises TraceError: if the file exists and is not to be resumed
    """

    def __init__(self, path: str | os.PathLike[str] | None, resume: bool) -> None:
        self.path = None if path is None else Path(path).expanduser().absolute()
        self._file: Any = None
        if self.path is None:
            return
        if self.path.suffix != ".traj":
            raise SettingError(
                f"{self.path}: trajectories are written in ASE's format, expected a name ending in .traj"
            )
        if self.path.exists() and not resume:
            raise TraceError(f"{self.path}: exists; give --resume to go on with that run, or another --trajectory")

    @property
    def wanted(self) -> bool:
        """Whether frames are written at all."""
        return self.path is not None

    def keep(self, replica: int, step: int) -> None:
        """Drop the frames of a simulation after a step, those that its continuation will write again."""
        if self.path is None:
            return
        self._close()
        if self.path.exists():
            frames, whole = _readable(self.path)
            kept = [a for a in frames if a.info["replica"] != replica or a.info["step"] <= step]
            if not whole or len(kept) < len(frames):
                temporary = self.path.with_suffix(".traj.new")
                with Trajectory(temporary, "w") as file:
                    for atoms in kept:
                        file.write(atoms)
                os.replace(temporary, self.path)
        self._file = Trajectory(self.path, "a")

    def write(self, atoms: Atoms, **labels: Any) -> None:
        """Append a frame."""
        frame = atoms.copy()
        frame.info = labels
        frame.calc = SinglePointCalculator(frame, **_known(atoms))  # a network's own calculator may not be written
        self._file.write(frame)

    def __enter__(self) -> TrajectoryFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _known(atoms: Atoms) -> dict[str, Any]:
    """What the calculator has computed for these very atoms."""
    found = {}
    for name in ("energy", "free_energy", "forces", "stress"):
        try:
            value = atoms.calc.get_property(name, atoms, allow_calculation=False)
        except (PropertyNotImplementedError, NotImplementedError):
            continue
        if value is not None:
            found[name] = value
    return found


def _readable(path: Path) -> tuple[list[Atoms], bool]:
    """All frames up to the first that a kill left incomplete, and whether there is none such."""
    frames: list[Atoms] = []
    try:
        with TrajectoryReader(path) as file:
            for i in range(len(file)):
                frames.append(file[i])
    except Exception:  # whatever ASE stumbles over in half a frame
        return frames, False
    return frames, True
