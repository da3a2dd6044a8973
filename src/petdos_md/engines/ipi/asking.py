"""Features that come with the forces: the observer asks for them, a driver of the same model sends them as extras of the same pass.

>>> asking = Asking(Path("run.zarr"), model)             # doctest: +SKIP
>>> asking.set(True)                                     # doctest: +SKIP  the forces of the next step come with features
>>> asked("run.zarr", model)                             # doctest: +SKIP  in a driver, which may be another process
True

i-PI tells its drivers neither the step nor who wants what. The two meet at a small file beside the trace, ``run.zarr.asks``: a driver
makes it, the observer writes there which model it wants features of. Where the driver does not see the file (another machine), nothing is
lost: the observer evaluates what did not come.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ...base.sample import Sample
from ...models.model import DOSModel

EXTRA = "petdos"
"""Name of the features among the extras of i-PI."""


class Asking:
    """The observer's side.

    :param trace: path of the trace
    :param model: whose features are wanted
    """

    def __init__(self, trace: Path, model: DOSModel) -> None:
        self._path, self._fingerprint, self._asked = file_of(trace), model.info.fingerprint, False

    def set(self, wanted: bool) -> None:
        """Whether the next forces are to come with features. A file that cannot be written is as one that nobody reads."""
        if (wanted or self._asked) and self._path.exists():
            try:
                self._path.write_text(self._fingerprint if wanted else "")
                self._asked = wanted
            except OSError:
                return

    def close(self) -> None:
        """Ask no more."""
        self.set(False)


def file_of(trace: str | os.PathLike[str]) -> Path:
    """The file at which observer and driver meet."""
    path = Path(trace).expanduser().absolute()
    return path.with_name(f"{path.name}.asks")


def asked(trace: str | os.PathLike[str], model: DOSModel) -> bool:
    """The driver's side: whether the observer of this trace wants features of this model now."""
    try:
        return file_of(trace).read_text() == model.info.fingerprint
    except OSError:
        return False


def samples_with_forces(system: Any, beads: list[Atoms], model: DOSModel) -> list[Sample] | None:
    """Samples of the beads of a system of i-PI, if their features came with its forces.

    :param beads: their structures, periodic in all directions
    """
    if not all(atoms.pbc.all() for atoms in beads):
        return None
    for component in system.forces.mforces:
        if component.weight == 0:
            continue  # reading its extras would evaluate it
        sent = component.extras.get(EXTRA, ())
        if len(sent) == len(beads) and all(np.size(features) == model.info.n_features for features in sent):
            return [model.sample_of(atoms, np.asarray(row)) for atoms, row in zip(beads, sent, strict=True)]
    return None
