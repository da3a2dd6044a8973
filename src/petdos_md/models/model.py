"""A model of the density of states: evaluates structures to features, the short record that all else is computed from.

>>> model = DOSModel.load("almgsi-lda")  # doctest: +SKIP
>>> sample = model.evaluate(atoms)       # doctest: +SKIP
>>> dos = model.dos(sample)              # doctest: +SKIP

Two kinds of files are understood (:mod:`petdos_md.models.loading`). A model with a *separate readout*, written by ``petdos export``,
returns last-layer features; its readout, a second file beside it, maps them to the DOS and its ensemble. Any other metatomic model with a
DOS output runs in *direct* mode: it is asked for the DOS itself. A model file is a program: load only files that you trust.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from ase import Atoms
from metatomic.torch import AtomisticModel

from ..base.errors import ModelError, PredictionError, StructureError
from ..base.grid import EnergyGrid
from ..base.notebooks import html_facts
from ..base.sample import ModelInfo, Sample
from .evaluator import Evaluator, Functional
from .loading import LoadedModel, load_direct, load_path
from .readout import Readout
from .structures import check_structure

MAX_ATOMS_PER_BATCH = {"cpu": 256, "cuda": 4096}
"""By kind of device. On a CPU larger batches are slower again (their arrays leave the caches); a GPU wants to be filled."""


class DOSModel:
    """A model of the electronic density of states.

    Made by :meth:`load`. Attributes: ``info`` (:class:`~petdos_md.base.sample.ModelInfo`), ``grid``
    (:class:`~petdos_md.base.grid.EnergyGrid`), ``path``, ``readout`` (:class:`~petdos_md.models.readout.Readout`), ``n_members``,
    ``electrons`` (valence electrons by symbol), ``atomic_types``, ``has_energy``, ``cutoff`` (angstrom), ``device``.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.info: ModelInfo = loaded.info
        self.readout: Readout = loaded.readout
        self.evaluator: Evaluator = loaded.evaluator
        self._outputs = loaded.outputs
        self.grid, self.path, self.n_members = self.info.grid, self.info.path, self.info.n_members
        self.electrons = self.info.electrons
        self.atomic_types, self.has_energy = self.evaluator.atomic_types, self.evaluator.has_energy
        self.cutoff, self.device, self.dtype = self.evaluator.cutoff, self.evaluator.device, self.evaluator.dtype

    # Deep copies share the model: it is never changed, and large. A pickle holds its path.

    def __deepcopy__(self, memo: dict[int, object]) -> DOSModel:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.path:
            raise ModelError(f"{self.info.name} was made in memory, so that it cannot be pickled; load it from a file")
        settings = {"grid": self.grid, "electrons": dict(self.electrons), "max_memory_GB": self.evaluator.max_memory_GB}
        return _load_again, (str(self.path), self.info.fingerprint, settings)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        *,
        grid: EnergyGrid | None = None,
        electrons: dict[str, float] | None = None,
        max_memory_GB: float | None = None,
    ) -> DOSModel:
        """Load a model.

        :param path: a model written by ``petdos export``, the name of a shipped model (see :func:`petdos_md.shipped_models`), or any
            metatomic ``.pt`` with a DOS output
        :param device: ``cpu`` or ``cuda``; by default the first that the model prefers and the machine has
        :param grid: energies, needed for a direct model that is not of the size of PET-MAD-DOS; for others it must agree
        :param electrons: valence electrons by symbol, to complete or replace those of the file
        :param max_memory_GB: structures that would take more are evaluated in chunks, see :mod:`petdos_md.models.chunks`; by default
            they are if they do not fit into the memory that is free. For models of ``petdos export``; forces are not divided.
        :raises ModelError: if there is no such model, it cannot be read, or its parts do not belong together
        :raises SettingError: if ``max_memory_GB`` is not positive, or not known what memory the model takes
        """
        return cls(load_path(path, device, grid, electrons, max_memory_GB))

    @classmethod
    def of(cls, model: DOSModel | str | os.PathLike[str]) -> DOSModel:
        """A model as it is, or loaded by its name or path.

        :raises ModelError: as :meth:`load`
        """
        return model if isinstance(model, DOSModel) else cls.load(os.fspath(model))

    @classmethod
    def from_atomistic(
        cls,
        model: AtomisticModel,
        grid: EnergyGrid | None = None,
        *,
        electrons: dict[str, float] | None = None,
        target: str | None = None,
        device: str | torch.device | None = None,
    ) -> DOSModel:
        """Use a metatomic model in memory, in direct mode; arguments as for :meth:`load`.

        :param target: name of the DOS output, needed if there are several
        """
        return cls(load_direct(model, None, grid, electrons, device, target))

    def __repr__(self) -> str:
        members = f"{self.n_members} members" if self.n_members else "no ensemble"
        return (
            f"<DOSModel {self.info.name!r}: {self.info.kind}, {self.grid.n} energies from {self.grid.start:g} to "
            f"{self.grid.stop:g} eV, {members}, {len(self.atomic_types)} elements, on {self.device}>"
        )

    def _repr_html_(self) -> str:
        valence = ", ".join(f"{symbol} {n:g}" for symbol, n in self.electrons.items())
        facts = {
            "kind": self.info.kind,
            "energies": f"{self.grid.n} from {self.grid.start:g} to {self.grid.stop:g} eV",
            "members": str(self.n_members or "no ensemble"),
            "valence electrons": valence or "not known",
            "device": str(self.device),
            "file": self.info.path or "in memory",
            "fingerprint": self.info.fingerprint[:12],
        }
        return html_facts(f"DOSModel {self.info.name}", facts)

    def n_electrons(self, atoms: Atoms) -> float:
        """Number of valence electrons of a structure.

        :raises StructureError: if the model has no number for one of the elements
        """
        symbols = atoms.get_chemical_symbols()
        missing = sorted(set(symbols) - self.electrons.keys())
        if missing:
            self.check(atoms)  # of an element that the model does not know, that is what to say
            raise StructureError(
                f"no number of valence electrons is known for {', '.join(missing)}; give electrons={{{missing[0]!r}: ...}} to "
                f"DOSModel.load (--electrons {missing[0]}=N), as in the pseudopotentials of the training data"
            )
        return float(sum(self.electrons[s] for s in symbols))

    def check(self, atoms: Atoms) -> None:
        """Whether a structure can be evaluated.

        :raises StructureError: if it has no atoms, numbers that are not finite, a cell without volume, or elements unknown to the model
        """
        check_structure(atoms, self.atomic_types, self.info.name)

    @overload
    def evaluate(self, atoms: Atoms, *, max_atoms_per_chunk: int | None = None) -> Sample: ...
    @overload
    def evaluate(self, atoms: Sequence[Atoms], *, max_atoms_per_chunk: int | None = None) -> list[Sample]: ...
    def evaluate(
        self, atoms: Atoms | Sequence[Atoms], *, max_atoms_per_chunk: int | None = None
    ) -> Sample | list[Sample]:
        """Evaluate one structure, or several in batches.

        :param max_atoms_per_chunk: evaluate larger structures in parts of so many atoms at most, halos included, whatever their memory;
            see :meth:`load` and :mod:`petdos_md.models.chunks`
        :raises StructureError: if a structure cannot be evaluated, see :meth:`check`
        :raises PredictionError: if the model returns NaN or infinity
        :raises SettingError: if chunks of that size are too small for the range of the model
        """
        if isinstance(atoms, Atoms):
            return self.evaluate([atoms], max_atoms_per_chunk=max_atoms_per_chunk)[0]
        structures = list(atoms)
        for structure in structures:
            self.check(structure)
        if max_atoms_per_chunk is None:
            batches = _batches(structures, self._max_atoms_per_batch)
        else:
            batches = [[structure] for structure in structures]
        samples: list[Sample] = []
        for batch in batches:
            if len(batch) == 1:
                rows = self.evaluator.row(batch[0], self._outputs, max_atoms_per_chunk)[None]
            else:
                rows = self.evaluator.rows(batch, self._outputs)
            samples += [self._sample(structure, row) for structure, row in zip(batch, rows, strict=True)]
        return samples

    def evaluate_with_forces(
        self, atoms: Atoms, stress: bool = True
    ) -> tuple[Sample, float, np.ndarray, np.ndarray | None]:
        """Sample, energy (eV), forces ``(n, 3)`` (eV/angstrom) and stress ``(3, 3)`` (eV/angstrom^3) of one forward pass.

        :param stress: None is returned in its place if False or if the structure is not periodic in three directions
        :raises ModelError: if the model has no energy head
        :raises StructureError, PredictionError: as :meth:`evaluate`
        """
        if not self.has_energy:
            raise ModelError(f"{self.info.name} has no energy output; give another potential")
        self.check(atoms)
        found = self.evaluator.energy_and_forces(atoms, self._outputs, stress)
        return self._sample(atoms, found.row), found.energy_eV, found.forces, found.stress

    def evaluate_with_functional(
        self,
        atoms: Atoms,
        gradient: Callable[[Sample], np.ndarray],
        with_energy: bool = False,
        stress: bool = True,
    ) -> tuple[Sample, float, np.ndarray, np.ndarray | None]:
        """As :meth:`evaluate_with_forces`, for a function of the features (of the DOS), with or without the energy head.

        Forces and stress are those of the energy, if wanted, plus the function; one forward and one backward pass in all.

        :param gradient: from the sample to the gradient of the function with respect to its features, ``(n_features,)``
        :raises ModelError: if an energy is wanted and there is no energy head
        :raises StructureError, PredictionError: as :meth:`evaluate`
        """
        if with_energy and not self.has_energy:
            raise ModelError(f"{self.info.name} has no energy output; give another potential")
        self.check(atoms)

        def of_row(row: np.ndarray) -> np.ndarray:
            vector = gradient(self._sample(atoms, row))
            # The number of atoms, the last but one of the features, does not come from the network.
            return np.delete(vector, -2) if self.info.kind == "separated" else vector

        found = self.evaluator.energy_and_forces(atoms, self._outputs, stress, Functional(of_row, with_energy))
        return self._sample(atoms, found.row), found.energy_eV, found.forces, found.stress

    def extrapolation_grade(self, x: Sample | Atoms) -> float:
        """How far a structure is from the training set, see :mod:`petdos_md.models.rigidity`; NaN if the model does not know."""
        return float(self.readout.extrapolation_grade(self._features(x)))

    def extrapolation_grade_of_atoms(self, atoms: Atoms) -> np.ndarray:
        """The same for every atom by its own features, against those of its element in the training set, ``(n_atoms,)``; NaN if not known.

        :raises StructureError: as :meth:`evaluate`
        """
        rigidity = self.readout.rigidity
        if rigidity is None:
            return np.full(len(atoms), np.nan)
        return rigidity.grade_of_atoms(self.features_of_atoms(atoms), atoms.get_chemical_symbols())

    def features_of_atoms(self, atoms: Atoms) -> np.ndarray:
        """Last-layer features of every atom, whose sum are those of the structure, ``(n_atoms, n_last_layer)`` float64.

        :raises ModelError: if the model has no separate readout
        :raises StructureError: as :meth:`evaluate`
        """
        if self.info.kind != "separated":
            raise ModelError(f"{self.info.name} has no separate readout; export its checkpoint with `petdos export`")
        self.check(atoms)
        return self.evaluator.rows_of_atoms(atoms, self._outputs[0])[:, : self.info.n_features - 2]

    def sample_of(self, atoms: Atoms, features: np.ndarray) -> Sample:
        """A sample with features ``(n_features,)`` that this model has given elsewhere for this structure.

        :raises PredictionError: if they are not finite
        """
        return self._sample(atoms, np.delete(features, -2) if self.info.kind == "separated" else features)

    def dos(self, x: Sample | Atoms) -> np.ndarray:
        """Density of states, ``(n_channels,)`` in states/eV per structure, both spins, on ``grid``."""
        return self.readout.dos(self._features(x))

    def dos_members(self, x: Sample | Atoms) -> np.ndarray:
        """Members of the ensemble, ``(n_members, n_channels)`` in states/eV per structure; their mean is :meth:`dos`.

        :raises ModelError: if the model has no ensemble
        """
        return self.readout.members(self._features(x))

    def stock_dos(self, atoms: Atoms) -> np.ndarray:
        """The DOS as a direct model's own last layer gives it, ``(n_channels,)``."""
        return self.evaluator.rows([atoms], self._outputs[:1])[0]

    def stock_members(self, atoms: Atoms) -> np.ndarray:
        """Members as a direct model's own ensemble gives them, ``(n_members, n_channels)``."""
        name = f"mtt::aux::{self._outputs[0].removeprefix('mtt::')}_ensemble"
        return self.evaluator.rows([atoms], (name,))[0].reshape(-1, self.grid.n)

    @property
    def _max_atoms_per_batch(self) -> int:
        return MAX_ATOMS_PER_BATCH.get(self.device.type, MAX_ATOMS_PER_BATCH["cpu"])

    def _features(self, x: Sample | Atoms) -> np.ndarray:
        sample = self.evaluate(x) if isinstance(x, Atoms) else x
        if sample.model.fingerprint != self.info.fingerprint:
            raise ModelError(
                f"the sample was made by {sample.model.name!r}, not by {self.info.name!r}; evaluate it again"
            )
        return sample.features

    def _sample(self, atoms: Atoms, row: np.ndarray) -> Sample:
        if self.info.kind == "separated":
            row = np.concatenate([row[:-1], [len(atoms)], row[-1:]])
        if not np.isfinite(row).all():
            raise PredictionError("the DOS model returned NaN or infinity; the structure is far from the training data")
        known = self.electrons.keys() >= set(atoms.symbols)
        return Sample(
            features=row.astype(self.info.dtype),
            model=self.info,
            n_atoms=len(atoms),
            n_electrons=self.n_electrons(atoms) if known else math.nan,
            volume_A3=float(atoms.get_volume()) if atoms.pbc.all() else math.nan,
        )


def _batches(structures: Sequence[Atoms], max_atoms: int) -> list[list[Atoms]]:
    batches: list[list[Atoms]] = []
    size = max_atoms + 1
    for atoms in structures:
        if size + len(atoms) > max_atoms:
            batches.append([])
            size = 0
        batches[-1].append(atoms)
        size += len(atoms)
    return batches


def _load_again(path: str, fingerprint: str, settings: dict[str, Any]) -> DOSModel:
    model = DOSModel.load(path, **settings)
    if model.info.fingerprint != fingerprint:
        raise ModelError(f"{path}: another model than the pickled one; put that file back")
    return model
