"""What a model says of its training set, so that it knows what is far from it: made at export, or of the structures later.

>>> store_rigidity("mine.pt", learn_rigidity(DOSModel.load("mine.pt"), ase.io.read("train.xyz", ":")))         # doctest: +SKIP
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from ase import Atoms
from safetensors import safe_open
from safetensors.numpy import save_file

from ..base.errors import ModelError
from .files import readout_path
from .model import DOSModel
from .readout import RIGIDITY, Readout
from .rigidity import REGULARIZER, Rigidity


def learn_rigidity(
    model: DOSModel,
    structures: Iterable[Atoms],
    regularizer: float = REGULARIZER,
    progress: Callable[[], None] | None = None,
) -> Rigidity:
    """The rigidity of a training set, by the network itself.

    :param structures: that the network was trained on
    :param regularizer: lambda
    :param progress: called after each structure
    :raises ModelError: if the model has no separate readout, or there are no structures
    :raises StructureError: if a structure cannot be evaluated
    """
    means, features, symbols, rows = [], [], [], []
    for row, atoms in enumerate(structures):
        of_atoms = model.features_of_atoms(atoms)
        means.append(of_atoms.mean(axis=0))
        features.append(of_atoms)
        symbols += atoms.get_chemical_symbols()
        rows += [row] * len(atoms)
        if progress is not None:
            progress()
    if not means:
        raise ModelError(f"{model.info.name}: got no training structures, expected at least one; give others")
    return Rigidity.of_training(np.array(means), regularizer, (np.concatenate(features), symbols, np.array(rows)))


def store_rigidity(path: str | os.PathLike[str], rigidity: Rigidity) -> None:
    """Put it into the readout beside a model, in place of what is there; nothing else of the model changes.

    :param path: of the model (``.pt``)
    :raises ModelError: if there is no readout, or it has another number of features
    """
    target = readout_path(Path(path))
    n_last_layer = Readout.load(target).n_features - 2
    if rigidity.n_last_layer != n_last_layer:
        raise ModelError(
            f"{target}: has {n_last_layer} last-layer features, got a rigidity of {rigidity.n_last_layer}; it is of another model"
        )
    with safe_open(target, framework="np") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dictionary
    tensors[RIGIDITY] = rigidity.cholesky.astype(np.float32)
    header[RIGIDITY] = rigidity.to_text()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".petdos-rigidity-") as folder:
        partial = Path(folder) / target.name
        save_file(tensors, str(partial), metadata=header)
        shutil.copymode(target, partial)
        os.replace(partial, target)
