"""PET as petdos exports it: the parameters of a metatrain checkpoint, evaluated slice by slice, as a metatomic model.

>>> network = SlicedPET(pet)                                                                   # doctest: +SKIP
>>> network.export(ModelMetadata(name="silicon")).save("silicon.pt")                           # doctest: +SKIP

Outputs are those of metatrain's PET that somebody may ask for: targets such as ``energy``, and their last-layer features
(``mtt::aux::NAME_last_layer_features``), per system or per atom; numbers equal metatrain's to rounding. In the place of a target that is
read out elsewhere stands :data:`~petdos_md.models.output_names.FEATURES_OUTPUT`, what that readout needs. Heads that nobody asks for are
not evaluated, neither are layers of atoms that no selected atom can feel. An energy also has its derivatives, with the memory of the
messages only, as outputs of their own (:mod:`petdos_md.models.output_names`); automatic differentiation of the outputs works too.

Derivatives of any other function of the features take two calls, between which the function may be evaluated elsewhere:

>>> graph, slices = network.prepare([system], None, True)                                      # doctest: +SKIP
>>> features, states = network.evaluate(graph, slices, 1, len(system), ["mtt::dos"], [], True) # doctest: +SKIP
>>> network.pull_back(graph, slices, states, {"mtt::dos": v})                                  # doctest: +SKIP

``evaluate`` is ``embed`` followed by every ``layer``, which a domain decomposition calls one by one to exchange messages in between;
see :mod:`petdos_md.models.network_backbone`.
"""

# TorchScript and metatomic's classes want Optional.
# ruff: noqa: UP045
from typing import Any, Optional

import torch
from metatensor.torch import Labels, TensorMap
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput, NeighborListOptions, System

from .energy_ensemble import EnergyEnsemble
from .network_graph import EdgeRules, find_levels, lay_out, lengths, pair_vectors
from .network_maps import atom_numbers, atom_samples, gradient_map, plain_map, system_samples
from .network_outputs import NetworkOutputs, check_architecture, uncertain_outputs
from .output_names import FEATURES_OUTPUT, POSITION_GRADIENT, STRAIN_GRADIENT

MAX_NUMBERS = 786432
"""Rows times d_pet of a slice on a CPU: a third costs a tenth more, with two threads most of all; three times as many cost more again."""
MAX_ROWS_GPU = 131072
MULTIPLE_GPU = 8
"""On a GPU the rows of an atom are rounded up to a multiple: fewer and larger rectangles."""
BYTES_OF = {"slice": 1.0e8, "pair": 200.0, "row": 100.0, "gradients": 200.0, "tape": 2.0e8}
"""Memory beside the messages: arrays of a slice, of a pair of the neighbor list, and of a row of the graph; with gradients, of a row again,
and of a slice."""
ADAPTIVE_EXCESS = 1.5
"""Neighbors within adaptive cutoffs, at most, in units of the wanted number: cutoffs of pairs are means of those of their atoms."""


class SlicedPET(NetworkOutputs):
    """A PET network of metatrain 2026.4, in float32 or float64, on CPU or CUDA.

    :param pet: metatrain's ``PET``, which stays as it is
    :param readout_of: a target whose last layer is evaluated elsewhere, None if there is none
    :param ensemble: of its energies, None if there is none
    :raises ModelError: if it has parts that cannot be evaluated in slices: long-range features, conditioning on charge or spin,
        targets in an atomic basis
    """

    # TorchScript looks up the types of what may be empty here, and not in the class above.
    bytes_of: dict[str, float]
    key_labels: dict[str, Labels]
    component_labels: dict[str, list[list[Labels]]]
    property_labels: dict[str, list[Labels]]
    targets: list[str]
    features_of: dict[str, str]
    outputs: dict[str, ModelOutput]
    uncertain_outputs: list[str]

    def __init__(self, pet: Any, readout_of: Optional[str] = None, ensemble: Optional[EnergyEnsemble] = None) -> None:
        check_architecture(pet)
        super().__init__(pet, ensemble)
        hypers = pet.hypers
        self.edges = EdgeRules(
            float(hypers["cutoff"]),
            str(hypers["cutoff_function"]).lower(),
            float(hypers["cutoff_width"]),
            float(hypers["num_neighbors_adaptive"] or 0.0),
            str(hypers["adaptive_cutoff_method"]).lower(),
            float(hypers["cutoff_width_adaptive"]),
        )
        self.cutoff, self.max_rows_gpu = self.edges.cutoff, MAX_ROWS_GPU
        self.max_rows = max(256, MAX_NUMBERS // int(hypers["d_pet"]))
        self.multiple_gpu = MULTIPLE_GPU
        self.bytes_of, self.adaptive_excess = dict(BYTES_OF), ADAPTIVE_EXCESS
        self.length_unit, self.atomic_types = str(pet.dataset_info.length_unit), [int(n) for n in pet.atomic_types]
        self.targets = list(pet.target_names)
        self.features_of = {_features_name(name): name for name in self.targets}
        self.position_gradient, self.strain_gradient = POSITION_GRADIENT, STRAIN_GRADIENT
        self.outputs = {
            name: output for name, output in pet.outputs.items() if name in self.targets or name in self.features_of
        }
        # The repulsion of metatrain's ZBL is differentiated by the engine, with the rest.
        if "energy" in self.targets and len(self.additive_models) == 1:
            self.outputs[POSITION_GRADIENT] = ModelOutput(unit="eV/Angstrom", sample_kind="atom", description="dE/dr")
            self.outputs[STRAIN_GRADIENT] = ModelOutput(unit="eV", sample_kind="system", description="dE/dstrain")
        uncertain = uncertain_outputs(pet.outputs.get("energy"), ensemble)
        self.uncertain_outputs = list(uncertain)
        self.outputs |= uncertain
        self.features_of |= dict.fromkeys(uncertain, "energy")
        self.features_output = FEATURES_OUTPUT
        if readout_of is not None:
            self.outputs.pop(readout_of)
            self.outputs.pop(_features_name(readout_of))
            self.features_of = {name: head for name, head in self.features_of.items() if head != readout_of}
            self.features_of[FEATURES_OUTPUT] = readout_of
            about = "last-layer features summed over atoms and edges, and the sum of the cutoff function over edges"
            self.outputs[FEATURES_OUTPUT] = ModelOutput(sample_kind="system", description=about)
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def export(self, metadata: Optional[ModelMetadata] = None) -> AtomisticModel:
        """The network as a metatomic model, with declared range and units.

        :param metadata: name, description and the like
        """
        dtype = self.backend.edge_embedder.weight.dtype
        self.additive_models[0].weights_to(torch.device("cpu"), torch.float64)
        ranges = [self.backend.n_layers * self.cutoff]
        ranges += [m.cutoff_radius for m in self.additive_models if hasattr(m, "cutoff_radius")]
        capabilities = ModelCapabilities(
            outputs=self.outputs,
            atomic_types=self.atomic_types,
            interaction_range=max(ranges),
            length_unit=self.length_unit,
            supported_devices=["cuda", "cpu"],
            dtype=str(dtype).removeprefix("torch."),
        )
        metadata = ModelMetadata() if metadata is None else metadata
        return AtomisticModel(torch.jit.script(self.eval()), metadata, capabilities)

    @torch.jit.export
    def requested_neighbor_lists(self) -> list[NeighborListOptions]:
        """One full list."""
        return [NeighborListOptions(cutoff=self.cutoff, full_list=True, strict=False)]

    @torch.jit.export
    def memory_needed(self, n_atoms: int, n_pairs: int, differentiable: bool) -> float:
        """Bytes that an evaluation takes at most, beside the parameters: of features, or of what :meth:`pull_back` needs as well.

        :param n_pairs: of the neighbor list, both directions counted
        """
        edges = float(n_pairs)
        if self.edges.n_neighbors > 0:
            edges = min(edges, self.adaptive_excess * self.edges.n_neighbors * n_atoms)
        rows = edges + n_atoms
        number = self.backend.edge_embedder.weight.element_size()
        per_row = self.bytes_of["row"] + self.backend.numbers_per_row(differentiable) * number
        total = self.bytes_of["slice"] + self.bytes_of["pair"] * n_pairs
        if differentiable:
            per_row += self.bytes_of["gradients"]
            total += self.bytes_of["tape"]
        return total + per_row * rows

    def forward(
        self,
        systems: list[System],
        outputs: dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> dict[str, TensorMap]:
        """As the interface of metatomic.

        :param systems: with full neighbor lists
        :param outputs: what to compute
        :param selected_atoms: whose features and energies are wanted; derivatives are those of their energy, for all atoms
        """
        differentiate = self.position_gradient in outputs or self.strain_gradient in outputs
        heads, per_atom = self._wanted(outputs, differentiate)
        graph, slices = self.prepare(systems, selected_atoms, differentiate)
        n_atoms = sum([len(system) for system in systems])
        features, states = self.evaluate(graph, slices, len(systems), n_atoms, heads, per_atom, differentiate)
        every = torch.arange(n_atoms, device=systems[0].positions.device)
        chosen = every if selected_atoms is None else atom_numbers(selected_atoms, systems)
        samples = {
            "atom": atom_samples(chosen, systems),
            "system": system_samples(len(systems), systems[0].positions),
        }
        results: dict[str, TensorMap] = {}
        predictions: dict[str, TensorMap] = {}
        for name, output in outputs.items():
            head = self.features_of.get(name, name)
            if head in self.targets:
                kind = "atom" if output.sample_kind == "atom" else "system"
                if kind == "atom":
                    sums = self.of_atoms(graph, features[head], chosen)
                else:
                    sums = self.sums(graph, slices, features[head], len(systems), head in per_atom)
                if name in self.uncertain_outputs:
                    results[name] = self.uncertain(name, kind, sums, systems, samples[kind], selected_atoms)
                elif head != name:
                    values = sums[0]
                    if name == self.features_output:
                        values = torch.cat([sums[0], sums[2]], dim=1)
                    results[name] = plain_map(values.to(systems[0].positions.dtype), samples[kind], "feature")
                else:
                    predictions[name] = self.predict(name, sums, systems, samples[kind])
        for name, finished in self.scale(systems, outputs, predictions, selected_atoms).items():
            results[name] = finished
        if differentiate:
            sums = self.sums(graph, slices, features["energy"], len(systems), "energy" in per_atom)
            cotangents = self.energy_cotangents(sums, systems, samples["system"])
            by_positions, by_strain = self.pull_back(graph, slices, states, cotangents)
            if self.position_gradient in outputs:
                results[self.position_gradient] = gradient_map(by_positions, atom_samples(every, systems))
            if self.strain_gradient in outputs:
                results[self.strain_gradient] = gradient_map(by_strain, samples["system"])
        return results

    @torch.jit.export
    def prepare(
        self,
        systems: list[System],
        selected_atoms: Optional[Labels],
        differentiable: bool,
    ) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
        """Graph and slices of systems, see :mod:`petdos_md.models.network_graph`.

        :param selected_atoms: whose features are wanted
        :param differentiable: whether :meth:`pull_back` follows
        """
        positions = torch.cat([system.positions for system in systems])
        cells = torch.stack([system.cell for system in systems])
        device = positions.device
        numbers: list[torch.Tensor] = []
        pairs: list[torch.Tensor] = []
        total = 0
        for i, system in enumerate(systems):
            numbers.append(torch.full((len(system),), i, dtype=torch.long, device=device))
            listed = system.get_neighbor_list(self.requested_neighbor_lists()[0]).samples.values.to(torch.long)
            listed[:, :2] += total
            pairs.append(listed)
            total += len(system)
        atoms = torch.cat(numbers)
        strain = torch.zeros_like(cells)
        before = torch.is_grad_enabled()
        if differentiable:
            torch.set_grad_enabled(True)
            positions = positions.detach().requires_grad_(True)
            strain = strain.detach().requires_grad_(True)
            moved = positions + torch.bmm(positions.unsqueeze(1), strain[atoms]).squeeze(1)
            cells = cells + torch.bmm(cells, strain)
        else:
            moved = positions
        types = torch.cat([system.types for system in systems])
        selected: Optional[torch.Tensor] = None
        if selected_atoms is not None:
            selected = atom_numbers(selected_atoms, systems)
        graph, slices = self._build(moved, cells, torch.cat(pairs), atoms, types, selected)
        graph["systems"] = atoms[graph["order"]]
        if differentiable:
            graph["positions"], graph["strain"] = positions, strain
            torch.set_grad_enabled(before)
        return graph, slices

    @torch.jit.export
    def evaluate(
        self,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        n_systems: int,
        n_atoms: int,
        heads: list[str],
        per_atom: list[str],
        keep: bool,
    ) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
        """Last-layer features of heads, and what entered each stage if that is to be kept for :meth:`pull_back`.

        Features are float64 ``(n_systems, n_features)``, or ``(n_atoms, n_features)`` for heads that are wanted per atom, then zero
        for atoms that are not selected.

        :param heads: names of targets
        :param per_atom: those of them that are wanted per atom
        """
        features = self.backend.no_features(graph, n_atoms, n_systems, heads, per_atom)
        if keep:
            with torch.no_grad():
                states = self._run(graph, slices, per_atom, features, keep)
        else:
            states = self._run(graph, slices, per_atom, features, keep)
        return features, states

    @torch.jit.export
    def embed(self, graph: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As :meth:`Backbone.embed`."""
        return self.backend.embed(graph)

    @torch.jit.export
    def layer(
        self,
        k: int,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        state: dict[str, torch.Tensor],
        per_atom: list[str],
        features: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """As :meth:`Backbone.layer`."""
        return self.backend.layer(k, graph, slices, state, per_atom, features)

    @torch.jit.export
    def readout(
        self, name: str, features: torch.Tensor, n_atoms: torch.Tensor, weight_sums: torch.Tensor
    ) -> list[torch.Tensor]:
        """As :meth:`Backbone.predict`: before scales and baselines."""
        return self.backend.predict(name, features, n_atoms, weight_sums)

    @torch.jit.export
    def pull_back(
        self,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        states: list[dict[str, torch.Tensor]],
        cotangents: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives of the sum of features times cotangents: by positions ``(n_atoms, 3)`` and strain ``(n_systems, 3, 3)``.

        :param graph: of :meth:`prepare`, differentiable
        :param states: of :meth:`evaluate`, kept
        :param cotangents: for heads, ``(n_systems, n_features)``; ``weights``, ``(n_systems, 1)``, for the sum of the cutoff function
        """
        of_heads: dict[str, torch.Tensor] = {}
        for name, cotangent in cotangents.items():
            if name != "weights":
                of_heads[name] = cotangent
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        d_vectors, d_weights = self.backend.pull_back(graph, slices, states, of_heads)
        d_sums = torch.zeros_like(graph["weight_sums"])
        if "weights" in cotangents:
            n = self.n_selected(slices)
            d_sums[:n] = cotangents["weights"][graph["systems"][:n], 0].to(d_sums.dtype)
        outputs = [graph["vectors"], graph["weights"], graph["weight_sums"]]
        inputs = [graph["positions"], graph["strain"]]
        seeds: list[Optional[torch.Tensor]] = [d_vectors, d_weights, d_sums]
        found = torch.autograd.grad(outputs, inputs, seeds, retain_graph=True, allow_unused=True)
        torch.set_grad_enabled(before)
        gradients: list[torch.Tensor] = []
        for i in range(2):
            gradient = found[i]
            gradients.append(torch.zeros_like(inputs[i]) if gradient is None else gradient)
        return gradients[0], gradients[1]

    def _run(
        self,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        per_atom: list[str],
        features: dict[str, torch.Tensor],
        keep: bool,
    ) -> list[dict[str, torch.Tensor]]:
        states: list[dict[str, torch.Tensor]] = []
        state = self.backend.embed(graph)
        for k in range(self.backend.n_stages):
            if keep:
                states.append(state)
            state = self.backend.layer(k, graph, slices, state, per_atom, features)
        return states

    def _build(
        self,
        positions: torch.Tensor,
        cells: torch.Tensor,
        pairs: torch.Tensor,
        atoms: torch.Tensor,
        types: torch.Tensor,
        selected_atoms: Optional[torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
        vectors = pair_vectors(positions, cells, pairs, atoms)
        keep, weights = self.edges(lengths(vectors), pairs[:, 0], pairs[:, 1], len(positions))
        pairs, vectors = pairs[keep], vectors[keep]
        levels = torch.zeros_like(atoms)
        max_level = self.backend.n_stages - 1
        if selected_atoms is not None:
            chosen = torch.zeros_like(atoms, dtype=torch.bool)
            chosen[selected_atoms] = True
            levels = find_levels(chosen, pairs[:, 0], pairs[:, 1], max_level)
        species = self.backend.species_to_species_index[types]
        on_cpu = positions.device.type == "cpu"
        rows, multiple = (self.max_rows, 1) if on_cpu else (self.max_rows_gpu, self.multiple_gpu)
        return lay_out(vectors, weights, pairs, species, levels, max_level, multiple, rows)

    def _wanted(self, outputs: dict[str, ModelOutput], differentiate: bool) -> tuple[list[str], list[str]]:
        """Heads to evaluate, and those of them that are wanted per atom."""
        heads: list[str] = []
        per_atom: list[str] = []
        if differentiate:
            heads.append("energy")
        for name, output in outputs.items():
            head = self.features_of.get(name, name)
            if head in self.targets:
                if head not in heads:
                    heads.append(head)
                if output.sample_kind == "atom" and head not in per_atom:
                    per_atom.append(head)
        return heads, per_atom


def _features_name(target: str) -> str:
    return f"mtt::aux::{target.replace('mtt::', '')}_last_layer_features"
