"""State of a run on disk, so that it goes on after a kill as if nothing had happened.

>>> state = RunState("run.zarr")                               # the folder run.zarr.state       # doctest: +SKIP
>>> with state.locked():                                                                         # doctest: +SKIP
...     state.save(0, Checkpoint.of(dynamics, phase="sample"))
...     state.load(0).restore(dynamics)

Each file is replaced as a whole: a kill leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.md.langevinbaoab import LangevinBAOAB

from ..base.errors import TraceError
from ..base.fixes import fix_for
from ..base.locks import FileLock, LockTaken

_BAROSTAT = ("p_eps", "force_eps")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step of one simulation depends on.

    :param phase: ``equilibrate`` or ``sample``
    :param n_steps: steps done in this phase
    :param arrays: positions (angstrom), momenta, cell and accelerations (ASE units), barostat if there is one
    :param random: state of the random numbers' bit generator
    """

    phase: str
    n_steps: int
    arrays: dict[str, np.ndarray]
    random: dict[str, Any]

    @classmethod
    def of(cls, dynamics: LangevinBAOAB, phase: str) -> Checkpoint:
        """The state of dynamics between two steps."""
        atoms = dynamics.atoms
        arrays = {
            "positions": atoms.get_positions(),
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array.copy(),
            "accel": np.array(dynamics.accel),
        }
        if dynamics.externalstress is not None:
            arrays |= {name: np.array(getattr(dynamics, name)) for name in _BAROSTAT}
        return cls(phase, dynamics.nsteps, arrays, dynamics.rng.bit_generator.state)

    def restore(self, dynamics: LangevinBAOAB) -> None:
        """Put dynamics made with the same settings into this state."""
        atoms = dynamics.atoms
        atoms.set_cell(self.arrays["cell"])
        atoms.set_positions(self.arrays["positions"], apply_constraint=False)
        atoms.set_momenta(self.arrays["momenta"], apply_constraint=False)
        dynamics.accel = self.arrays["accel"]
        for name in _BAROSTAT:
            if name in self.arrays:
                setattr(dynamics, name, self.arrays[name][()])
        dynamics.nsteps = self.n_steps
        dynamics.rng.bit_generator.state = self.random


class RunState:
    """The folder with the settings of a run and a checkpoint of each of its simulations.

    :param output: the trace; the folder is named after it
    """

    def __init__(self, output: str | os.PathLike[str]) -> None:
        self.output = Path(output).expanduser().absolute()
        self.folder = self.output.with_name(self.output.name + ".state")

    @property
    def exists(self) -> bool:
        """Whether a run has got as far as its first checkpoint."""
        return any(self.folder.glob("*.npz"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out; a kill frees the place.

        :raises TraceError: if another run is at work
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire()
        except LockTaken as taken:
            raise TraceError(
                f"{self.output}: another `petdos md` is running on it ({taken.holder}); wait for it to end or choose another -o"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def settings(self) -> dict[str, Any] | None:
        """What :meth:`save_settings` stored, None if nothing is."""
        path = self.folder / "settings.json"
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text()))
        except (ValueError, TypeError):
            raise TraceError(f"{path}: damaged; restore it from a copy, or start anew with another -o") from None

    def save_settings(self, settings: dict[str, Any]) -> None:
        """Store JSON-ready settings.

        :raises TraceError: if they cannot be written
        """
        _replace(self.folder / "settings.json", (json.dumps(settings, indent=1) + "\n").encode())

    def save(self, replica: int, checkpoint: Checkpoint) -> None:
        """Store a checkpoint in place of the last one of this simulation.

        :raises TraceError: if it cannot be written; the last one is kept then
        """
        head = {"phase": checkpoint.phase, "n_steps": checkpoint.n_steps, "random": checkpoint.random}
        arrays: dict[str, Any] = {**checkpoint.arrays, "head": np.array(json.dumps(head))}
        content = io.BytesIO()
        np.savez(content, **arrays)
        _replace(self._path(replica), content.getvalue())

    def load(self, replica: int) -> Checkpoint | None:
        """The last checkpoint of a simulation, None if there is none.

        :raises TraceError: if the file is damaged
        """
        path = self._path(replica)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head = json.loads(str(arrays.pop("head")))
            return Checkpoint(head["phase"], int(head["n_steps"]), arrays, head["random"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            raise TraceError(f"{path}: damaged; delete it to repeat this temperature from its start") from None

    def _path(self, replica: int) -> Path:
        return self.folder / f"replica{replica:03d}.npz"


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise TraceError(f"{path}: cannot write: {error.strerror}; {fix_for(error)} and resume") from None
