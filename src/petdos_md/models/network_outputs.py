"""From sums of last-layer features to what a metatomic model returns: last layers, scales, baselines, labels.

>>> outputs = network.scale(systems, {"energy": ModelOutput()}, {"energy": raw}, None)         # doctest: +SKIP
"""

# TorchScript and metatomic's classes want Optional.
# ruff: noqa: UP045
import copy
from typing import Any, Optional

import torch
from metatensor.torch import Labels, TensorMap
from metatomic.torch import ModelOutput, System

from ..base.errors import ModelError
from .energy_ensemble import EnergyEnsemble
from .network_backbone import Backbone
from .network_layers import n_atoms as atoms_in
from .network_maps import add_maps, blocks_map, plain_map, symmetric_over_volume
from .output_names import ENERGY_ENSEMBLE, ENERGY_UNCERTAINTY


def uncertain_outputs(energy: Optional[ModelOutput], ensemble: Optional[EnergyEnsemble]) -> dict[str, ModelOutput]:
    """What an ensemble of energies adds to the outputs of a model."""
    if energy is None or ensemble is None:
        return {}
    about = {ENERGY_UNCERTAINTY: "standard deviation of the energy"}
    if len(ensemble.members):
        about[ENERGY_ENSEMBLE] = "ensemble of the energy"
    kind = energy.sample_kind
    return {name: ModelOutput(unit=energy.unit, sample_kind=kind, description=text) for name, text in about.items()}


def check_architecture(pet: Any) -> None:
    fix = "export it with `mtt export` and load the result directly"
    if pet.long_range:
        raise ModelError(f"got a PET with long-range features, expected one without; {fix}")
    if pet.system_conditioning is not None:
        raise ModelError(f"got a PET that is conditioned on charge and spin, expected one that is not; {fix}")
    basis = [name for name in pet.target_names if pet.dataset_info.targets[name].is_atomic_basis]
    if basis:
        raise ModelError(f"got a PET with the target {basis[0]!r} in an atomic basis, expected none; {fix}")


class NetworkOutputs(torch.nn.Module):
    """A backbone with the scales and baselines of metatrain.

    :param pet: metatrain's ``PET``
    :param ensemble: of its energies, None if there is none
    """

    whitening: torch.Tensor
    members: torch.Tensor

    def __init__(self, pet: Any, ensemble: Optional[EnergyEnsemble]) -> None:
        super().__init__()
        if ensemble is None:
            self.whitening = self.members = torch.empty((0, 0))
        else:
            self.register_buffer("whitening", torch.tensor(ensemble.whitening))
            self.register_buffer("members", torch.tensor(ensemble.members))
        self.ensemble_output = ENERGY_ENSEMBLE
        self.backend: Any = Backbone(copy.deepcopy(pet.backend))
        self.additive_models, self.scaler = pet.additive_models, pet.scaler
        self.key_labels, self.component_labels = dict(pet.key_labels), dict(pet.component_labels)
        self.property_labels = dict(pet.property_labels)

    def of_atoms(
        self, graph: dict[str, torch.Tensor], features: torch.Tensor, chosen: torch.Tensor
    ) -> list[torch.Tensor]:
        """Features, ones and sums of the cutoff function of some atoms.

        :param features: of all atoms, ``(n_atoms, n_features)``
        """
        weights = (
            torch.zeros_like(features[:, 0]).index_copy(0, graph["order"], graph["weight_sums"])[chosen].unsqueeze(1)
        )
        return [features[chosen], torch.ones_like(weights), weights]

    def sums(
        self,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        features: torch.Tensor,
        n_systems: int,
        is_per_atom: bool,
    ) -> list[torch.Tensor]:
        """Features, numbers of atoms and sums of the cutoff function of systems, over their selected atoms, in float64."""
        n = self.n_selected(slices)
        systems, order, weights = graph["systems"][:n], graph["order"][:n], graph["weight_sums"][:n].unsqueeze(1)
        zeros = torch.zeros((n_systems, 1), dtype=torch.float64, device=features.device)
        if is_per_atom:
            wide = torch.zeros((n_systems, features.shape[1]), dtype=torch.float64, device=features.device)
            features = wide.index_add(0, systems, features[order].double())
        counts = zeros.index_add(0, systems, torch.ones_like(weights).double())
        return [features, counts, zeros.index_add(0, systems, weights.double())]

    def predict(self, name: str, sums: list[torch.Tensor], systems: list[System], samples: Labels) -> TensorMap:
        blocks = self.backend.predict(name, sums[0], sums[1], sums[2])
        dtype = systems[0].positions.dtype
        values = [block.to(dtype) for block in blocks]
        if name == "non_conservative_stress":
            cells = torch.stack([system.cell for system in systems])
            values = [symmetric_over_volume(v, cells, samples.column("system").to(torch.long)) for v in values]
        return blocks_map(
            values, samples, self.key_labels[name], self.component_labels[name], self.property_labels[name]
        )

    def scale(
        self,
        systems: list[System],
        outputs: dict[str, ModelOutput],
        predictions: dict[str, TensorMap],
        selected_atoms: Optional[Labels],
    ) -> dict[str, TensorMap]:
        """Scales and baselines."""
        predictions = self.scaler.apply_scales(
            systems,
            predictions,
            selected_atoms=selected_atoms,
            use_per_target_scales=True,
            use_per_property_scales=True,
        )
        for model in self.additive_models:
            wanted: dict[str, ModelOutput] = {}
            for name, output in outputs.items():
                if name in model.outputs:
                    wanted[name] = output
            if len(wanted) > 0:
                for name, added in model(systems, wanted, selected_atoms).items():
                    predictions[name] = add_maps(predictions[name], added)
        return predictions

    def uncertain(
        self,
        name: str,
        kind: str,
        sums: list[torch.Tensor],
        systems: list[System],
        samples: Labels,
        selected_atoms: Optional[Labels],
    ) -> TensorMap:
        """The standard deviation of energies, ``(n_samples, 1)``, or the members of their ensemble, ``(n_samples, n_members)``.

        :param kind: of the samples, ``atom`` or ``system``
        :param sums: of the energy head
        """
        features = sums[0].double()
        if name == self.ensemble_output:
            raw = {"energy": self.predict("energy", sums, systems, samples)}
            wanted = {"energy": ModelOutput(sample_kind=kind)}
            energy = self.scale(systems, wanted, raw, selected_atoms)["energy"].block().values
            values = energy.double() + features @ self.members.T
        else:
            values = torch.linalg.norm(features @ self.whitening, dim=1, keepdim=True)
        return plain_map(values.to(systems[0].positions.dtype), samples, "energy")

    def energy_cotangents(
        self, sums: list[torch.Tensor], systems: list[System], samples: Labels
    ) -> dict[str, torch.Tensor]:
        """Derivatives of the energy with respect to the features and the sum of the cutoff function."""
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        leaves = [sums[0].detach().requires_grad_(True), sums[2].detach().requires_grad_(True)]
        raw = {"energy": self.predict("energy", [leaves[0], sums[1].detach(), leaves[1]], systems, samples)}
        scaled = self.scaler.apply_scales(systems, raw)["energy"]
        found = torch.autograd.grad([scaled.block().values.sum()], leaves)
        torch.set_grad_enabled(before)
        names = ["energy", "weights"]
        cotangents: dict[str, torch.Tensor] = {}
        for name, gradient in zip(names, found):  # noqa: B905 TorchScript
            if gradient is not None:
                cotangents[name] = gradient
        return cotangents

    def n_selected(self, slices: list[list[int]]) -> int:
        n = 0
        for piece in slices:
            if piece[0] == 0:
                n += atoms_in(piece)
        return n
