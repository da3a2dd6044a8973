"""Evaluation of a metatomic model: from atoms to the rows of its outputs, whole or in chunks, with forces if it has energies.

>>> evaluator = Evaluator(load_file(path), torch.device("cpu"))               # doctest: +SKIP
>>> evaluator.rows([atoms], ("mtt::dos",))[0]                                 # doctest: +SKIP
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from metatensor.torch import Labels
from metatomic.torch import AtomisticModel, ModelEvaluationOptions, ModelOutput, System
from vesin.metatomic import NeighborList

from ..base.errors import PredictionError, SettingError
from ..base.memory import SHARE, free_memory
from .chunks import hops_needed, sum_over_chunks
from .files import as_written
from .output_names import FEATURES_OUTPUT, POSITION_GRADIENT, STRAIN_GRADIENT

logger = logging.getLogger(__name__)

MAX_ATOMS_AT_ONCE = 1000
"""Of a structure whose forces come from the whole network at once: faster by a third, but the memory grows by 1.5 MB an atom for a network
of the size of PET-MAD-DOS."""
ALWAYS_FITS = 1e9
"""Bytes that an evaluation may take without asking how many are free."""
_OUTPUTS = {
    POSITION_GRADIENT: ModelOutput(unit="eV/Angstrom", sample_kind="atom"),
    STRAIN_GRADIENT: ModelOutput(unit="eV", sample_kind="system"),
}

_Gradients = tuple[np.ndarray, float, np.ndarray, np.ndarray | None]
"""Row of other outputs, energy, its derivatives by positions ``(n_atoms, 3)`` and strain ``(3, 3)``."""


class Functional(NamedTuple):
    """A function of the row of other outputs whose forces are wanted.

    :param gradient: from the row to its gradient ``(width,)``, called between forward and backward pass
    :param with_energy: whether the forces of the energy are wanted, too
    """

    gradient: Callable[[np.ndarray], np.ndarray]
    with_energy: bool


class EnergyAndForces(NamedTuple):
    """What moves the atoms, and the row of the other outputs that came with it.

    ``energy_eV``, 0 if it was not wanted; ``forces`` ``(n_atoms, 3)`` eV/angstrom; ``stress`` ``(3, 3)`` eV/angstrom^3 or None; ``row`` ``(width,)``.
    """

    row: np.ndarray
    energy_eV: float
    forces: np.ndarray
    stress: np.ndarray | None


class Evaluator:
    """A metatomic model on a device.

    :param max_memory_GB: larger structures are evaluated in chunks; by default what the device has free
    :raises SettingError: if it is given and the model does not say what memory it takes

    Attributes: ``module``, ``dtype``, ``device``, ``atomic_types`` (ascending), ``has_energy``, ``cutoff`` (angstrom), ``max_memory_GB``.
    """

    def __init__(self, module: AtomisticModel, device: torch.device, max_memory_GB: float | None = None) -> None:
        capabilities = module.capabilities()
        self.device = device
        self.dtype: torch.dtype = getattr(torch, capabilities.dtype)
        self.atomic_types = sorted(int(n) for n in capabilities.atomic_types)
        self.has_energy = "energy" in capabilities.outputs
        # Of atoms where it can be: they are summed in double precision here, in that of the model there.
        kind = capabilities.outputs["energy"].sample_kind if self.has_energy else "system"
        self._energy = {"energy": ModelOutput(unit="eV", sample_kind=kind)}
        self.max_memory_GB = max_memory_GB
        self._memory_needed = getattr(module.module, "memory_needed", None)
        if max_memory_GB is not None and not max_memory_GB > 0:
            raise SettingError(f"got max_memory_GB={max_memory_GB}, expected a positive number")
        if max_memory_GB is not None and self._memory_needed is None:
            raise SettingError(
                "max_memory_GB: this model does not say how much memory it takes; export it with `petdos export`, or leave this out and "
                "give max_atoms_per_chunk"
            )
        self._has_gradients = {POSITION_GRADIENT, STRAIN_GRADIENT} <= set(capabilities.outputs)
        self.module = module.to(device=device)
        lists = module.requested_neighbor_lists()
        # Without a skin the order of neighbors depends on the structure alone, so that a resumed run equals an unbroken one.
        self._neighbors = [NeighborList(options, "angstrom", skin=0.0) for options in lists]
        self.cutoff = max((options.engine_cutoff("angstrom") for options in lists), default=0.0)

    def rows(self, batch: Sequence[Atoms], outputs: tuple[str, ...]) -> np.ndarray:
        """Outputs of whole structures side by side, ``(len(batch), width)`` float64."""
        with torch.no_grad():
            systems = [self._system(atoms) for atoms in batch]
            self._add_neighbors(systems)
            return self._arrays(self._forward(systems, outputs, "system"), outputs)

    def row(self, atoms: Atoms, outputs: tuple[str, ...], max_atoms: int | None = None) -> np.ndarray:
        """Outputs of one structure, ``(width,)`` float64; in chunks if it does not fit into the memory, or has more than ``max_atoms``.

        :raises SettingError: if chunks of that size are too small for the range of the model
        """
        system = self.system(atoms)
        if max_atoms is None:
            max_atoms = self._atoms_that_fit(system)
        if len(atoms) > max_atoms:
            return self._sum_over_chunks(system, outputs, max_atoms)
        with torch.no_grad():
            return self._arrays(self._forward([system], outputs, "system"), outputs)[0]

    def rows_of_atoms(self, atoms: Atoms, output: str) -> np.ndarray:
        """An output of every atom of one structure, whole, ``(n_atoms, width)`` float64."""
        with torch.no_grad():
            return self._arrays(self._forward([self.system(atoms)], (output,), "atom"), (output,))

    def _atoms_that_fit(self, system: System) -> int:
        """Of a structure as dense as this one; at least as many as it has if it fits.

        :raises SettingError: if there is no memory for a single one
        """
        if self._memory_needed is None:
            return len(system)
        n_pairs = sum(len(system.get_neighbor_list(options).samples) for options in system.known_neighbor_lists())
        needed = self._memory_needed(len(system), n_pairs, False)
        if self.max_memory_GB is None and needed <= ALWAYS_FITS:
            return len(system)
        allowed = available_memory(self.device) if self.max_memory_GB is None else 1e9 * self.max_memory_GB
        if needed <= allowed:
            return len(system)
        fixed = self._memory_needed(0, 0, False)
        fits = int(len(system) * (allowed - fixed) / (needed - fixed))
        if fits < 1:
            raise SettingError(
                f"{len(system)} atoms take {needed / 1e9:.2g} GB, {allowed / 1e9:.2g} GB are allowed, which do not suffice for one atom; give "
                f"max_memory_GB, or run where {fixed / 1e9 + 0.1:.1f} GB are free"
            )
        logger.info("%d atoms take %.2g GB: evaluated in chunks of %d atoms", len(system), needed / 1e9, fits)
        return fits

    def _sum_over_chunks(self, system: System, outputs: tuple[str, ...], max_atoms: int) -> np.ndarray:
        """Outputs of chunks of at most so many atoms, halos included, summed; ``(width,)``."""

        def run(part: System, n_own: int) -> list[torch.Tensor]:
            numbers = torch.arange(n_own, dtype=torch.int32, device=self.device)
            own = Labels(["system", "atom"], torch.stack([torch.zeros_like(numbers), numbers], dim=1))
            result = self._forward([part], outputs, "system", own)
            return [result[name].block().values for name in outputs]

        hops = hops_needed(self.module.capabilities(), self.cutoff)
        with torch.no_grad():
            return np.concatenate(sum_over_chunks(system, hops, max_atoms, run))

    def energy_and_forces(
        self, atoms: Atoms, outputs: tuple[str, ...], stress: bool, functional: Functional | None = None
    ) -> EnergyAndForces:
        """Energy, its derivatives and other outputs in one forward pass.

        :param functional: a function of the other outputs whose forces are added
        :param stress: whether it is wanted; None is returned if not, or if the structure is not periodic in three directions
        :raises PredictionError: if a number is not finite
        """
        stress = stress and bool(atoms.pbc.all())
        large = len(atoms) > MAX_ATOMS_AT_ONCE
        if large and functional is None and self._has_gradients:
            found = self._in_slices(atoms, outputs, stress)
        elif large and functional is not None and self._pulls_back(outputs, functional.with_energy):
            found = self._pulled_back(atoms, functional)
        else:
            found = self._at_once(atoms, outputs, stress, functional)
        row, energy, by_positions, by_strain = found
        if not (math.isfinite(energy) and np.isfinite(by_positions).all()):
            raise PredictionError("the potential returned NaN or infinity; the structure is far from the training data")
        tensor = None
        if stress and by_strain is not None:
            # PET is not exactly invariant under rotations: the antisymmetric part is noise.
            tensor = 0.5 * (by_strain + by_strain.T) / atoms.get_volume()
        return EnergyAndForces(row, energy, -by_positions, tensor)

    def _at_once(
        self, atoms: Atoms, outputs: tuple[str, ...], stress: bool, functional: Functional | None
    ) -> _Gradients:
        """Automatic differentiation of the whole network: fast, and all that it computes stays in memory."""
        system = self._system(atoms)
        positions = system.positions.requires_grad_(True)
        strain = torch.eye(3, dtype=self.dtype, device=self.device, requires_grad=stress)
        strained = System(system.types, positions @ strain, system.cell @ strain, system.pbc)
        self._add_neighbors([strained])
        with_energy = functional is None or functional.with_energy
        result = self._forward([strained], outputs, "system", energy=with_energy)
        heads, cotangents, energy = [], [], 0.0
        if with_energy:
            heads.append(result["energy"].block().values)
            cotangents.append(torch.ones_like(heads[0]))
            energy = heads[0].double().sum().item()
        row = self._arrays(result, outputs)[0]
        if functional is not None:
            rows = [result[name].block().values for name in outputs]
            gradient = torch.as_tensor(functional.gradient(row), dtype=self.dtype, device=self.device)
            used = [
                (r, v) for r, v in zip(rows, gradient.split([r.shape[1] for r in rows]), strict=True) if r.requires_grad
            ]
            heads += [r for r, _ in used]
            cotangents += [v[None] for _, v in used]
        found = torch.autograd.grad(heads, [positions, strain] if stress else [positions], cotangents)
        by_positions, *by_strain = (gradient.double().cpu().numpy() for gradient in found)
        return row, energy, by_positions, by_strain[0] if stress else None

    def _pulls_back(self, outputs: tuple[str, ...], with_energy: bool) -> bool:
        """Whether the network is one that can be asked for its features and their derivatives apart."""
        has = hasattr(self.module.module, "pull_back") and outputs == (FEATURES_OUTPUT,)
        return has and (self._has_gradients or not with_energy)

    def _pulled_back(self, atoms: Atoms, functional: Functional) -> _Gradients:
        """As :meth:`_in_slices`, for a function of the features that is evaluated here (:mod:`petdos_md.models.network`)."""
        system, network = self.system(atoms), self.module.module
        head = network.features_of[FEATURES_OUTPUT]
        heads = [head, "energy"] if functional.with_energy else [head]
        energy, cotangents = 0.0, {}
        with torch.no_grad(), as_written():
            graph, slices = network.prepare([system], None, True)
            features, states = network.evaluate(graph, slices, 1, len(atoms), heads, heads[1:], True)
            phi, _, weights = network.sums(graph, slices, features[head], 1, False)
            if functional.with_energy:
                numbers = torch.arange(len(atoms), device=self.device)
                samples = Labels(["system", "atom"], torch.stack([torch.zeros_like(numbers), numbers], dim=1).int())
                of_atoms = network.of_atoms(graph, features["energy"], numbers)
                raw = {"energy": network.predict("energy", of_atoms, [system], samples)}
                scaled = network.scale([system], self._energy, raw, None)
                energy = float(scaled["energy"].block().values.double().sum())
                sums = network.sums(graph, slices, features["energy"], 1, True)
                whole = Labels(["system"], torch.zeros((1, 1), dtype=torch.int32, device=self.device))
                cotangents = network.energy_cotangents(sums, [system], whole)
            row = torch.cat([phi, weights], dim=1)[0].to(self.dtype).double().cpu().numpy()
            gradient = torch.as_tensor(functional.gradient(row), dtype=torch.float64, device=self.device)[None]
            cotangents[head] = gradient[:, :-1]
            cotangents["weights"] = cotangents.get("weights", 0.0) + gradient[:, -1:]
            by_positions, by_strain = network.pull_back(graph, slices, states, cotangents)
        return row, energy, by_positions.double().cpu().numpy(), by_strain[0].double().cpu().numpy()

    def _in_slices(self, atoms: Atoms, outputs: tuple[str, ...], stress: bool) -> _Gradients:
        """Derivatives that the network computes slice by slice, in the memory of its messages."""
        system = self.system(atoms)
        gradients = (POSITION_GRADIENT, STRAIN_GRADIENT) if stress else (POSITION_GRADIENT,)
        with torch.no_grad():
            result = self._forward([system], (*gradients, *outputs), "system", energy=True)
        found = [result[name].block().values.double().cpu().numpy()[..., 0] for name in gradients]
        energy = float(result["energy"].block().values.double().sum())
        return self._arrays(result, outputs)[0], energy, found[0], found[1][0] if stress else None

    def system(self, atoms: Atoms) -> System:
        """A structure with its neighbor lists, on the device."""
        system = self._system(atoms)
        self._add_neighbors([system])
        return system

    def _system(self, atoms: Atoms) -> System:
        as_tensor: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        # metatomic wants zero cell vectors along directions that are not periodic.
        cell = torch.tensor(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0), **as_tensor)
        types = torch.tensor(atoms.numbers, dtype=torch.int32, device=self.device)
        # Far from the origin float32 has few digits left for distances: in double precision, into the cell first.
        positions = (
            atoms.get_positions(wrap=True) if atoms.pbc.any() else atoms.positions - atoms.positions.mean(axis=0)
        )
        return System(types, torch.tensor(positions, **as_tensor), cell, torch.tensor(atoms.pbc, device=self.device))

    def _add_neighbors(self, systems: list[System]) -> None:
        for neighbors in self._neighbors:
            neighbors.add_neighbor_list(systems, copy=True)

    def _forward(
        self,
        systems: list[System],
        outputs: tuple[str, ...],
        sample_kind: str,
        own: Labels | None = None,
        energy: bool = False,
    ) -> dict[str, Any]:
        requested = {name: _OUTPUTS.get(name, ModelOutput(sample_kind=sample_kind)) for name in outputs}
        requested |= self._energy if energy else {}
        options = ModelEvaluationOptions("angstrom", requested, own)
        with as_written():
            return self.module(systems, options, check_consistency=False)

    def _arrays(self, result: dict[str, Any], outputs: tuple[str, ...]) -> np.ndarray:
        if not outputs:
            return np.empty((1, 0))
        values = [result[name].block().values.detach().double() for name in outputs]
        return torch.cat(values, dim=1).cpu().numpy()


def available_memory(device: torch.device) -> float:
    """Bytes that may be taken on a device: a share of what is free."""
    if device.type != "cuda":
        return free_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return SHARE * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
