"""Load a model file and evaluate structures: from atoms to features, the short record that all else is computed from.

>>> model = DOSModel.load("almgsi-lda")  # doctest: +SKIP
>>> sample = model.evaluate(atoms)       # doctest: +SKIP
>>> dos = model.dos(sample)              # doctest: +SKIP

Two kinds of files are understood. A model with a *separate readout*, written by ``petdos export``, returns last-layer features; its readout (a
second file beside it) maps them to the DOS and its ensemble. Any other metatomic model with a DOS output runs in *direct* mode:
it is asked for the DOS itself. A model file is a program: load only files that you trust.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from metatomic.torch import AtomisticModel, ModelEvaluationOptions, ModelOutput, System
from vesin.metatomic import NeighborList

from ..base.errors import ModelError, PredictionError, StructureError
from ..base.grid import EnergyGrid
from ..base.sample import ModelInfo, Sample
from .chunks import hops_needed, sum_over_chunks
from .files import as_written, choose_device, display_path, dos_output, find_model, load_file, readout_path
from .readout import Readout

CUTOFF_SUM_OUTPUT = "mtt::petdos"
"""Output of a backbone: the sum of the cutoff function over edges."""
LAST_LAYER_OUTPUT = "mtt::aux::petdos_last_layer_features"
METADATA_KEY = "petdos"
"""Where a model with separate readout describes itself, in the ``extra`` metadata of metatomic."""
PET_MAD_GRID = EnergyGrid(-159.6456, 0.05, 4806)
"""Energies of PET-MAD-DOS (10.1039/D5DD00557D), which its files do not contain."""
MAX_ATOMS_PER_BATCH = {"cpu": 256, "cuda": 4096}
"""By kind of device. On a CPU larger batches are slower again (their arrays leave the caches); a GPU wants to be filled."""

logger = logging.getLogger(__name__)


class DOSModel:
    """A model of the electronic density of states.

    Made by :meth:`load`. Attributes: ``info`` (:class:`~petdos_md.base.sample.ModelInfo`), ``grid``
    (:class:`~petdos_md.base.grid.EnergyGrid`), ``path``, ``readout`` (:class:`~petdos_md.models.readout.Readout`), ``n_members``,
    ``electrons`` (valence electrons by symbol), ``atomic_types``, ``has_energy``, ``cutoff`` (angstrom), ``device``.
    """

    def __init__(
        self, model: AtomisticModel, info: ModelInfo, readout: Readout, outputs: tuple[str, ...], device: torch.device
    ) -> None:
        capabilities = model.capabilities()
        self.info, self.readout, self.device = info, readout, device
        self.grid, self.path, self.n_members, self.electrons = info.grid, info.path, info.n_members, info.electrons
        self.dtype: torch.dtype = getattr(torch, capabilities.dtype)
        self.atomic_types = sorted(int(n) for n in capabilities.atomic_types)
        self.has_energy = "energy" in capabilities.outputs
        self._model = model.to(device=device)
        self._outputs = outputs
        # Without a skin the order of neighbors depends on the structure alone, so that a resumed run equals an unbroken one.
        self._neighbors = [NeighborList(o, "angstrom", skin=0.0) for o in model.requested_neighbor_lists()]
        self.cutoff = max((o.engine_cutoff("angstrom") for o in model.requested_neighbor_lists()), default=0.0)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        *,
        grid: EnergyGrid | None = None,
        electrons: dict[str, float] | None = None,
    ) -> DOSModel:
        """Load a model.

        :param path: an artifact of ``petdos export``, the name of a shipped model (see :func:`shipped_models`), or any
            metatomic ``.pt`` with a DOS output
        :param device: ``cpu`` or ``cuda``; by default the first that the model prefers and the machine has
        :param grid: energies, needed for a direct model that is not of the size of PET-MAD-DOS; for others it must agree
        :param electrons: valence electrons by symbol, to complete or replace those of the file
        :raises ModelError: if there is no such model, it cannot be read, or its parts do not belong together
        """
        path = find_model(path)
        module = load_file(path)
        where = choose_device(device, module.capabilities().supported_devices)
        record = json.loads(module.metadata().extra.get(METADATA_KEY, "null"))
        if record is None:
            return cls._direct(module, path, grid, electrons, where)
        readout = Readout.load(readout_path(path))
        if readout.fingerprint != record["fingerprint"]:
            raise ModelError(
                f"{readout_path(path)}: belongs to another model than {path.name}; keep the two files of one `petdos export` together"
            )
        if grid is not None and grid != readout.grid:
            raise ModelError(f"{path}: has the grid {readout.grid}, not {grid}; leave out grid=")
        info = ModelInfo(
            name=record["name"],
            fingerprint=record["fingerprint"],
            grid=readout.grid,
            kind="separated",
            n_features=readout.n_features,
            n_members=readout.n_members,
            electrons={**record["electrons"], **(electrons or {})},
            path=display_path(path),
            dtype=module.capabilities().dtype,
        )
        return cls(module, info, readout, (LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT), where)

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
        where = choose_device(device, model.capabilities().supported_devices)
        return cls._direct(model, None, grid, electrons, where, target)

    @classmethod
    def _direct(
        cls,
        module: AtomisticModel,
        path: Path | None,
        grid: EnergyGrid | None,
        electrons: dict[str, float] | None,
        device: torch.device,
        target: str | None = None,
    ) -> DOSModel:
        name = "the model in memory" if path is None else str(path)
        names = list(module.capabilities().outputs)
        target = target or dos_output(names, name)
        base = target.removeprefix("mtt::")
        last_layer = f"mtt::aux::{base}_last_layer_features"
        outputs = (target, last_layer) if last_layer in names else (target,)
        bare = cls(module, _bare_info(name), Readout.for_direct(PET_MAD_GRID, None, 0, ""), outputs, device)
        widths = [len(part) for part in bare._record([Atoms(numbers=bare.atomic_types[:1])])[0]]
        if grid is None and widths[0] == PET_MAD_GRID.n:
            grid = PET_MAD_GRID
        if grid is None or grid.n != widths[0]:
            raise ModelError(
                f"{name}: its DOS has {widths[0]} channels and the file does not tell their energies; give "
                f"grid=EnergyGrid(start, step, {widths[0]})" + (f", got {grid.n} points" if grid else "")
            )
        deviations = None
        n_last_layer = widths[1] if len(widths) > 1 else 0
        for key, parameter in module.named_parameters():
            if n_last_layer and key.endswith(f"llpr_ensemble_layers.{target}.weight"):
                members = parameter.detach().cpu().reshape(-1, grid.n, n_last_layer)
                deviations = members - members.mean(dim=0)
        digest = hashlib.sha256(repr(grid).encode())
        if path is not None:
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        else:
            for key, parameter in sorted(module.named_parameters()):
                digest.update(key.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
        readout = Readout.for_direct(grid, deviations, n_last_layer, digest.hexdigest())
        info = ModelInfo(
            name=path.stem if path else "model",
            fingerprint=digest.hexdigest(),
            grid=grid,
            kind="direct",
            n_features=readout.n_features,
            n_members=readout.n_members,
            electrons=dict(electrons or {}),
            path=display_path(path) if path else "",
            dtype=module.capabilities().dtype,
        )
        logger.info(
            "%s has no separate readout: it is asked for %s; `petdos export` of its checkpoint is faster", name, target
        )
        return cls(module, info, readout, outputs, device)

    def __repr__(self) -> str:
        members = f"{self.n_members} members" if self.n_members else "no ensemble"
        return (
            f"<DOSModel {self.info.name!r}: {self.info.kind}, {self.grid.n} energies from {self.grid.start:g} to "
            f"{self.grid.stop:g} eV, {members}, {len(self.atomic_types)} elements, on {self.device}>"
        )

    def n_electrons(self, atoms: Atoms) -> float:
        """Number of valence electrons of a structure.

        :raises StructureError: if the model has no number for one of the elements
        """
        symbols = atoms.get_chemical_symbols()
        missing = sorted(set(symbols) - self.electrons.keys())
        if missing:
            raise StructureError(
                f"no number of valence electrons is known for {', '.join(missing)}; give electrons={{{missing[0]!r}: ...}} to "
                "DOSModel.load, as in the pseudopotentials of the training data"
            )
        return float(sum(self.electrons[s] for s in symbols))

    def check(self, atoms: Atoms) -> None:
        """Whether a structure can be evaluated.

        :raises StructureError: if it has no atoms, numbers that are not finite, or elements unknown to the model
        """
        if len(atoms) == 0:
            raise StructureError("the structure has no atoms, expected at least one")
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise StructureError(
                "positions or cell are not finite (NaN or infinite); the simulation has probably exploded, use a shorter timestep"
            )
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.atomic_types))
        if unknown:
            known = " ".join(chemical_symbols[n] for n in self.atomic_types)
            raise StructureError(
                f"element {chemical_symbols[unknown[0]]} is unknown to {self.info.name}, which knows {known}; give a model that "
                "was trained on it"
            )

    @overload
    def evaluate(self, atoms: Atoms, *, max_atoms_per_chunk: int | None = None) -> Sample: ...
    @overload
    def evaluate(self, atoms: Sequence[Atoms], *, max_atoms_per_chunk: int | None = None) -> list[Sample]: ...
    def evaluate(
        self, atoms: Atoms | Sequence[Atoms], *, max_atoms_per_chunk: int | None = None
    ) -> Sample | list[Sample]:
        """Evaluate one structure, or several in batches.

        :param max_atoms_per_chunk: evaluate larger structures in parts of so many atoms at most, halos included, to bound the
            memory; see :mod:`petdos_md.models.chunks`
        :raises StructureError: if a structure cannot be evaluated, see :meth:`check`
        :raises PredictionError: if the model returns NaN or infinity
        :raises SettingError: if chunks of that size are too small for the range of the model
        """
        if isinstance(atoms, Atoms):
            return self.evaluate([atoms], max_atoms_per_chunk=max_atoms_per_chunk)[0]
        for structure in atoms:
            self.check(structure)
        samples: list[Sample] = []
        for batch in (
            _batches(atoms, self._max_atoms_per_batch) if max_atoms_per_chunk is None else [[a] for a in atoms]
        ):
            if max_atoms_per_chunk is not None and len(batch[0]) > max_atoms_per_chunk:
                records = [self._record_in_chunks(batch[0], max_atoms_per_chunk)]
            else:
                records = self._record(batch)
            for structure, parts in zip(batch, records, strict=True):
                samples.append(self._sample(structure, parts))
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
        stress = stress and bool(atoms.pbc.all())
        system = self._system(atoms)
        types, positions, cell, pbc = system.types, system.positions, system.cell, system.pbc
        positions.requires_grad_(True)
        strain = torch.eye(3, dtype=self.dtype, device=self.device, requires_grad=stress)
        strained = System(types, positions @ strain, cell @ strain, pbc)
        result = self._run([strained], ("energy", *self._outputs))
        energy = result["energy"].block().values.sum()
        inputs = [positions, strain] if stress else [positions]
        gradients = torch.autograd.grad(energy, inputs)
        forces = -gradients[0].double().cpu().numpy()
        virial = None
        if stress:
            # PET is not exactly invariant under rotations: the antisymmetric part is noise.
            strain_gradient = gradients[1].double().cpu().numpy()
            virial = 0.5 * (strain_gradient + strain_gradient.T) / atoms.get_volume()
        if not (math.isfinite(energy.item()) and np.isfinite(forces).all()):
            raise PredictionError("the potential returned NaN or infinity; the structure is far from the training data")
        return self._sample(atoms, self._parts(result, 1)[0]), energy.item(), forces, virial

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
        return self._run_plain([atoms], self._outputs[:1])[self._outputs[0]].block().values[0].double().cpu().numpy()

    def stock_members(self, atoms: Atoms) -> np.ndarray:
        """Members as a direct model's own ensemble gives them, ``(n_members, n_channels)``."""
        name = f"mtt::aux::{self._outputs[0].removeprefix('mtt::')}_ensemble"
        block = self._run_plain([atoms], (name,))[name].block()
        return block.values[0].double().cpu().numpy().reshape(-1, self.grid.n)

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

    def _sample(self, atoms: Atoms, parts: list[np.ndarray]) -> Sample:
        if self.info.kind == "separated":
            last_layer, edges = parts
            features = np.concatenate([last_layer, [len(atoms)], edges])
        else:
            features = np.concatenate(parts)
        if not np.isfinite(features).all():
            raise PredictionError("the DOS model returned NaN or infinity; the structure is far from the training data")
        known = self.electrons.keys() >= set(atoms.symbols)
        return Sample(
            features=features.astype(np.float32 if self.dtype == torch.float32 else np.float64),
            model=self.info,
            n_atoms=len(atoms),
            n_electrons=self.n_electrons(atoms) if known else math.nan,
            volume_A3=float(atoms.get_volume()) if atoms.pbc.all() else math.nan,
        )

    def _record(self, batch: Sequence[Atoms]) -> list[list[np.ndarray]]:
        return self._parts(self._run_plain(batch, self._outputs), len(batch))

    def _record_in_chunks(self, atoms: Atoms, max_atoms: int) -> list[np.ndarray]:
        system = self._system(atoms)
        for neighbors in self._neighbors:
            neighbors.add_neighbor_list([system], copy=True)

        def run(part: System) -> list[torch.Tensor]:
            result = self._forward([part], self._outputs, "atom")
            return [result[name].block().values for name in self._outputs]

        with torch.no_grad():
            return sum_over_chunks(system, hops_needed(self._model.capabilities(), self.cutoff), max_atoms, run)

    def _parts(self, result: dict[str, Any], n: int) -> list[list[np.ndarray]]:
        arrays = [result[name].block().values.detach().double().cpu().numpy() for name in self._outputs]
        return [[array[i] for array in arrays] for i in range(n)]

    def _run_plain(self, batch: Sequence[Atoms], outputs: tuple[str, ...]) -> dict[str, Any]:
        with torch.no_grad():
            return self._run([self._system(atoms) for atoms in batch], outputs)

    def _system(self, atoms: Atoms) -> System:
        as_tensor: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        # metatomic wants zero cell vectors along directions that are not periodic.
        cell = torch.tensor(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0), **as_tensor)
        types = torch.tensor(atoms.numbers, dtype=torch.int32, device=self.device)
        return System(
            types, torch.tensor(atoms.positions, **as_tensor), cell, torch.tensor(atoms.pbc, device=self.device)
        )

    def _run(self, systems: list[System], outputs: tuple[str, ...]) -> dict[str, Any]:
        for neighbors in self._neighbors:
            neighbors.add_neighbor_list(systems, copy=True)
        return self._forward(systems, outputs, "system")

    def _forward(self, systems: list[System], outputs: tuple[str, ...], sample_kind: str) -> dict[str, Any]:
        requested = {n: ModelOutput(unit="eV" if n == "energy" else "", sample_kind=sample_kind) for n in outputs}
        options = ModelEvaluationOptions(length_unit="angstrom", outputs=requested)
        with as_written():
            return self._model(systems, options, check_consistency=False)


def _bare_info(name: str) -> ModelInfo:
    return ModelInfo(name, "", PET_MAD_GRID, "direct", PET_MAD_GRID.n, 0, {}, "")


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
