"""The network in slices against metatrain's own PET on the same checkpoints: values, derivatives, and what is not computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import AtomisticModel, ModelEvaluationOptions, ModelOutput, System, load_atomistic_model
from vesin.metatomic import NeighborList

from petdos_md.base.errors import ModelError
from petdos_md.models.checkpoints import load_networks, make_backbone
from petdos_md.models.export import fingerprint
from petdos_md.models.files import find_model, load_file
from petdos_md.models.network import SlicedPET
from petdos_md.models.network_graph import plan_slices, sort_atoms
from petdos_md.models.output_names import (
    CUTOFF_SUM_OUTPUT,
    FEATURES_OUTPUT,
    LAST_LAYER_OUTPUT,
    POSITION_GRADIENT,
    STRAIN_GRADIENT,
)
from petdos_md.models.testing import SMALL, write_checkpoints

CUTOFF = SMALL["cutoff"]
FEATURES = "mtt::aux::dos_last_layer_features"
ENERGY_FEATURES = "mtt::aux::energy_last_layer_features"
SCRIPTED = ("as PET-MAD-DOS", "repulsion")
"""Architectures that are compiled too, which takes seconds; the others run in Python, which is the same program."""
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "residual": {},
    "one layer": {"num_gnn_layers": 1},
    "four layers": {"num_gnn_layers": 4},
    "feed-forward": {"featurizer_type": "feedforward"},
    "feed-forward, four layers": {"featurizer_type": "feedforward", "num_gnn_layers": 4},
    "feed-forward, one layer": {"featurizer_type": "feedforward", "num_gnn_layers": 1},
    "as PET-MAD-DOS": {"transformer_type": "PostLN", "normalization": "LayerNorm", "activation": "SiLU", "d_node": 16},
    "pre-norm, equal widths": {"transformer_type": "PreLN", "d_node": 16, "num_attention_layers": 2},
    "post-norm, gates, wide atoms": {"transformer_type": "PostLN", "activation": "SwiGLU", "num_attention_layers": 2},
    "adaptive": {"num_neighbors_adaptive": 9},
    "adaptive by a grid": {"num_neighbors_adaptive": 9, "adaptive_cutoff_method": "grid"},
    "cosine, warm": {"cutoff_function": "Cosine", "attention_temperature": 1.7},
    "repulsion": {"zbl": True},
}


def lattice(repeats: tuple[int, int, int], seed: int = 1, pbc: Any = True) -> Atoms:
    """Silicon with displaced atoms, a third of which are aluminum."""
    atoms = ase.build.bulk("Si", cubic=True) * repeats
    atoms.rattle(0.3, seed=seed)
    atoms.symbols[::3] = "Al"
    atoms.pbc = pbc
    return atoms


def structures() -> dict[str, Atoms]:
    cell = [[3.2, 0, 0], [1.1, 3.0, 0], [-0.7, 0.9, 3.4]]
    triclinic = Atoms("AlSi", scaled_positions=[[0, 0, 0], [0.4, 0.55, 0.5]], cell=cell, pbc=True)
    uneven = lattice((2, 2, 2))
    uneven.cell[2, 2] *= 4
    uneven.positions[:8, 2] += 15.0
    uneven += Atoms("Al", positions=[[2.0, 2.0, 36.0]])
    return {
        "one atom": Atoms("Si"),
        "pair": Atoms("SiAl", positions=[[0, 0, 0], [0, 0, 2.4]]),
        "apart": Atoms("SiAl", positions=[[0, 0, 0], [0, 0, 30.0]]),
        "cluster of 17": lattice((2, 2, 1), pbc=False)[:17],
        "slab": lattice((2, 2, 1), pbc=(True, True, False)),
        "wire": lattice((1, 1, 3), pbc=(False, False, True)),
        "triclinic, smaller than the cutoff": triclinic,
        "dense, dilute and alone": uneven,
        "300 atoms": lattice((4, 4, 3))[:300],
    }


def to_system(atoms: Atoms, model: Any, dtype: torch.dtype, leaves: list[torch.Tensor] | None = None) -> System:
    """With neighbors; a function of positions and strain, if there are :func:`make_leaves`."""
    cell = torch.tensor(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0), dtype=dtype)
    positions = torch.tensor(atoms.positions, dtype=dtype)
    if leaves is not None:
        positions, cell = leaves[0] @ leaves[1], cell @ leaves[1]
    system = System(torch.tensor(atoms.numbers, dtype=torch.int32), positions, cell, torch.tensor(atoms.pbc))
    for options in model.requested_neighbor_lists():
        NeighborList(options, "angstrom", skin=0.0).add_neighbor_list([system], copy=True)
    return system


def make_leaves(atoms: Atoms, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Positions and strain, to differentiate with respect to."""
    positions = torch.tensor(atoms.positions, dtype=dtype, requires_grad=True)
    return [positions, torch.eye(3, dtype=dtype, requires_grad=True)]


def make_pet(folder: Path, hypers: dict[str, Any], dtype: torch.dtype = torch.float64, energy: bool = True) -> Any:
    path, _ = write_checkpoints(
        folder, {**SMALL, **hypers}, symbols=["Al", "Si"], n_channels=30, energy=energy, dtype=dtype
    )
    pet, _ = load_networks(path, None, "mtt::dos")
    return pet


def make_sliced(pet: Any, max_rows: int = 150) -> SlicedPET:
    """Its slices are so small that structures have several."""
    network = SlicedPET(pet).eval()
    network.max_rows = max_rows
    return network


def through_a_file(network: Any, folder: Path) -> AtomisticModel:
    """Exported, saved and loaded: this network, or metatrain's."""
    network.export().save(str(folder / "exported.pt"))
    return load_atomistic_model(str(folder / "exported.pt"))


def ask(
    model: Any, systems: list[System], names: list[str], kind: str = "system", selected: Any = None
) -> dict[str, Any]:
    outputs = {name: ModelOutput(sample_kind="atom" if name == POSITION_GRADIENT else kind) for name in names}
    if isinstance(model, AtomisticModel):
        return model(systems, ModelEvaluationOptions("angstrom", outputs, selected), check_consistency=True)
    return model(systems, outputs, selected)


def deviation(value: torch.Tensor, expected: torch.Tensor) -> float:
    assert value.shape == expected.shape
    return float((value - expected).detach().abs().max() / expected.detach().abs().max().clamp_min(1e-300))


def assert_equal_maps(found: Any, expected: Any, tolerance: float) -> None:
    assert found.keys == expected.keys
    for key, block in expected.items():
        assert found.block(key).samples == block.samples
        assert found.block(key).properties == block.properties
        assert deviation(found.block(key).values, block.values) < tolerance


WITH_DERIVATIVES = (
    "residual",
    "feed-forward, four layers",
    "as PET-MAD-DOS",
    "post-norm, gates, wide atoms",
    "adaptive",
    "cosine, warm",
)
"""Each way of the derivatives once; of the others, slow tests."""
IN_SINGLE_PRECISION = ("as PET-MAD-DOS", "adaptive")
"""Double precision tells more; of the others, single precision is a slow test."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(name, torch.float64, id=f"{name}-float64") for name in ARCHITECTURES]
    + [
        pytest.param(
            name,
            torch.float32,
            id=f"{name}-float32",
            marks=[] if name in IN_SINGLE_PRECISION else pytest.mark.slow,
        )
        for name in ARCHITECTURES
    ],
)
def test_equals_metatrain(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Every output, per system and per atom, for a batch of all structures and for each alone."""
    pet = make_pet(tmp_path, ARCHITECTURES[name], dtype)
    model: Any = make_sliced(pet)
    if name in SCRIPTED:
        model = through_a_file(model, tmp_path)
    # The last digits of metatrain's repulsion depend on whether it is compiled.
    stock = through_a_file(pet, tmp_path) if name == "repulsion" else pet
    names = ["energy", "mtt::dos", FEATURES, ENERGY_FEATURES]
    systems = [to_system(atoms, model, dtype) for atoms in structures().values()]
    with torch.no_grad():
        for batch in (systems, systems[:1], systems[-1:]):
            for kind in ("system", "atom"):
                found, expected = ask(model, batch, names, kind), ask(stock, batch, names, kind)
                for output in names:
                    assert_equal_maps(found[output], expected[output], TOLERANCE[dtype])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in WITH_DERIVATIVES else pytest.mark.slow)
        for name in ARCHITECTURES
        if name != "repulsion"
    ],
)
def test_derivatives_of_the_energy(name: str, tmp_path: Path) -> None:
    """By automatic differentiation of the energy, and slice by slice, against automatic differentiation of metatrain's."""
    pet = make_pet(tmp_path, ARCHITECTURES[name])
    model: Any = make_sliced(pet)
    if name in SCRIPTED:
        model = through_a_file(model, tmp_path)
    for atoms in structures().values():
        leaves = make_leaves(atoms)
        system = to_system(atoms, model, torch.float64, leaves)
        expected = _differentiate(pet, system, leaves)
        found = _differentiate(model, system, leaves)
        with torch.no_grad():
            result = ask(model, [system], [POSITION_GRADIENT, STRAIN_GRADIENT])
        sliced = (
            result[POSITION_GRADIENT].block().values[..., 0],
            result[STRAIN_GRADIENT].block().values[0, ..., 0],
        )
        for a, b, reference in zip(found, sliced, expected, strict=True):
            scale = reference.abs().max().clamp_min(1e-10)
            assert (a - reference).abs().max() < 1e-11 * scale
            assert (b - reference).abs().max() < 1e-11 * scale


def _differentiate(model: Any, system: System, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    energy = ask(model, [system], ["energy"])["energy"].block().values.sum()
    found = torch.autograd.grad(energy, leaves, allow_unused=True, retain_graph=True)
    a, b = (torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True))
    return a, b


def test_plain_gradients_with_repulsion(tmp_path: Path) -> None:
    """A network with metatrain's repulsion leaves derivatives to the engine, and does not offer its own."""
    pet = make_pet(tmp_path, {"zbl": True})
    model = through_a_file(make_sliced(pet), tmp_path)
    stock = through_a_file(pet, tmp_path)
    assert POSITION_GRADIENT not in model.capabilities().outputs
    atoms = lattice((2, 1, 1))
    leaves = make_leaves(atoms)
    system = to_system(atoms, model, torch.float64, leaves)
    for a, b in zip(_differentiate(model, system, leaves), _differentiate(stock, system, leaves), strict=True):
        assert deviation(a, b) < 1e-11


@pytest.mark.parametrize("name", ["residual", "feed-forward", "adaptive"])
def test_pull_back_of_features(name: str, tmp_path: Path) -> None:
    """Derivatives of a nonlinear function of features and of the sum of weights: two heads, two systems, finite differences."""
    pet = make_pet(tmp_path, ARCHITECTURES[name])
    backbone = make_backbone(pet, "mtt::dos")
    network = make_sliced(backbone)
    batch = [lattice((2, 1, 1)), lattice((1, 1, 2), seed=2, pbc=(True, True, False))]
    heads = ["mtt::petdos", "energy"]

    def value(positions: list[np.ndarray], strain: np.ndarray) -> tuple[torch.Tensor, ...]:
        moved = []
        for atoms, r in zip(batch, positions, strict=True):
            copy = atoms.copy()
            copy.positions = r
            copy.set_cell(atoms.cell.array @ strain)
            copy.positions = r @ strain
            moved.append(to_system(copy, network, torch.float64))
        graph, slices = network.prepare(moved, None, True)
        features, states = network.evaluate(graph, slices, 2, sum(len(a) for a in batch), heads, [], True)
        leaves = [features[head].requires_grad_(True) for head in heads]
        sums = torch.zeros(2, 1, dtype=torch.float64).index_add(
            0, graph["systems"], graph["weight_sums"].detach()[:, None]
        )
        sums.requires_grad_(True)
        function = torch.sin(leaves[0]).sum() + (leaves[1] ** 2).sum() * 0.1 + torch.cos(sums * 0.01).sum()
        v = torch.autograd.grad(function, [*leaves, sums])
        gradients = network.pull_back(graph, slices, states, dict(zip([*heads, "weights"], v, strict=True)))
        return function.detach(), *gradients

    start = [atoms.positions.copy() for atoms in batch]
    _, by_positions, by_strain = value(start, np.eye(3))
    h = 1e-5
    for atom, axis in [(0, 0), (5, 2), (len(batch[0]) + 3, 1)]:
        ends = []
        for sign in (1, -1):
            r = [p.copy() for p in start]
            which, place = (0, atom) if atom < len(batch[0]) else (1, atom - len(batch[0]))
            r[which][place, axis] += sign * h
            ends.append(float(value(r, np.eye(3))[0]))
        assert abs((ends[0] - ends[1]) / (2 * h) - float(by_positions[atom, axis])) < 1e-6 * by_positions.abs().max()
    ends = []
    for sign in (1, -1):
        strain = np.eye(3)
        strain[0, 1] += sign * h
        ends.append(float(value(start, strain)[0]))
    assert abs((ends[0] - ends[1]) / (2 * h) - float(by_strain[:, 0, 1].sum())) < 1e-6 * by_strain.abs().max()


@pytest.mark.parametrize("name", ["residual", "four layers", "feed-forward", "adaptive"])
def test_selected_atoms(name: str, tmp_path: Path) -> None:
    """Outputs and derivatives of part of the atoms, in two systems; atoms that they do not feel cost nothing."""
    pet = make_pet(tmp_path, ARCHITECTURES[name])
    model = make_sliced(pet)
    atoms = lattice((6, 1, 1))
    atoms.pbc = False
    leaves = make_leaves(atoms)
    systems = [to_system(atoms, model, torch.float64, leaves), to_system(lattice((1, 1, 2)), model, torch.float64)]
    chosen = Labels(["system", "atom"], torch.tensor([[0, 1], [0, 4], [1, 2], [0, 0]], dtype=torch.int32))
    names = ["energy", FEATURES]
    for kind in ("system", "atom"):
        found, expected = ask(model, systems, names, kind, chosen), ask(pet, systems, names, kind, chosen)
        for output in names:
            assert_equal_maps(found[output], expected[output], 1e-12)
    reference = torch.autograd.grad(expected["energy"].block().values.sum(), leaves[:1], retain_graph=True)[0]
    result = ask(model, systems, [POSITION_GRADIENT], selected=chosen)
    sliced = result[POSITION_GRADIENT].block().values[: len(atoms), :, 0]
    assert (sliced - reference).abs().max() < 1e-11 * reference.abs().max()
    _, slices = model.prepare(systems, chosen, False)
    computed = sum(sum(piece[3::2]) for piece in slices)
    assert computed < 0.8 * sum(len(system) for system in systems) or name in ("four layers", "feed-forward")


def test_stages_one_by_one_with_messages_from_elsewhere(tmp_path: Path) -> None:
    """Two domains that exchange the messages of border edges between layers give the sum of the whole, and repeat no work."""
    pet = make_pet(tmp_path, {"num_gnn_layers": 3})
    network = make_sliced(pet, 60)
    system = to_system(lattice((3, 1, 1)), network, torch.float64)
    graph, slices = network.prepare([system], None, False)
    whole, _ = network.evaluate(graph, slices, 1, len(system), ["mtt::dos"], [], False)
    half = len(slices) // 2
    features = [torch.zeros_like(whole["mtt::dos"]) for _ in range(2)]
    states = [network.embed(graph) for _ in range(2)]
    border = slices[half][2]
    for k in range(3):
        states = [
            network.layer(k, graph, part, state, [], {"mtt::dos": sums})
            for part, state, sums in zip((slices[:half], slices[half:]), states, features, strict=True)
        ]
        if k < 2:
            exchanged = torch.cat([states[0]["messages"][:border], states[1]["messages"][border:]])
            states = [{"messages": exchanged}, {"messages": exchanged}]
    assert deviation(features[0] + features[1], whole["mtt::dos"]) < 1e-13


def test_parameters_and_fingerprint_are_those_of_the_backbone(tmp_path: Path) -> None:
    pet = make_pet(tmp_path, {"featurizer_type": "feedforward"}, torch.float32)
    backbone = make_backbone(pet, "mtt::dos")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    network = SlicedPET(backbone)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    nothing = torch.zeros(1)
    assert fingerprint(network, nothing, None) == fingerprint(backbone, nothing, None)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("kind", ["system", "atom"])
def test_features_output_is_what_the_readout_needs(kind: str, tmp_path: Path) -> None:
    """Last-layer features and the sum of the cutoff function, as the backbone of metatrain's own network has them in two outputs."""
    backbone = make_backbone(make_pet(tmp_path, {}), "mtt::dos")
    network = SlicedPET(backbone, readout_of=CUTOFF_SUM_OUTPUT).eval()
    assert {"mtt::petdos", LAST_LAYER_OUTPUT}.isdisjoint(network.outputs)
    network.max_rows = 150
    for atoms in structures().values():
        system = to_system(atoms, network, torch.float64)
        expected = ask(backbone, [system], [LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT], kind)
        both = torch.cat([expected[name].block().values for name in (LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT)], dim=1)
        assert deviation(ask(network, [system], [FEATURES_OUTPUT], kind)[FEATURES_OUTPUT].block().values, both) < 1e-12


def test_shipped_model_from_its_checkpoint(tmp_path: Path) -> None:
    """The trained network: its parameters, and so its fingerprint, are those of the shipped file, and so are its features."""
    checkpoint = Path(__file__).parents[2] / "examples" / "training" / "checkpoints" / "almgsi-lda.ckpt"
    pet, _ = load_networks(checkpoint, None, "mtt::dos")
    network = SlicedPET(make_backbone(pet, "mtt::dos"), readout_of=CUTOFF_SUM_OUTPUT).eval()
    network.max_rows = 150
    shipped = load_file(find_model("almgsi-lda"))
    expected = shipped.module.state_dict()
    found = network.state_dict()
    # The ensemble of energies comes from data (examples/training/energy_ensemble.py).
    assert found.keys() == expected.keys() - {"whitening", "members"} != expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    system = to_system(lattice((2, 2, 2)), shipped, torch.float32)
    names = [FEATURES_OUTPUT, "energy"]
    a, b = ask(network, [system], names), ask(shipped, [system], names)
    for name in names:
        assert deviation(a[name].block().values, b[name].block().values) < 1e-5


@pytest.mark.parametrize("wanted, idle", [(["energy"], "mtt::dos"), ([FEATURES], "energy")])
def test_heads_that_nobody_asks_for_are_not_evaluated(wanted: list[str], idle: str, tmp_path: Path) -> None:
    network = make_sliced(make_pet(tmp_path, {}))
    called: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: called.append(name)

    for kind in (network.backend.node_heads, network.backend.edge_heads):
        for name, layers in kind.items():
            for layer in layers:
                layer.register_forward_hook(note(name))
    ask(network, [to_system(lattice((1, 1, 1)), network, torch.float64)], wanted)
    assert called and idle not in called


def test_memory_of_sliced_derivatives_is_that_of_messages(tmp_path: Path) -> None:
    """The graph of automatic differentiation keeps many times more numbers than one message per row."""
    pet = make_pet(tmp_path, {"d_pet": 64, "d_node": 64, "d_head": 64, "num_attention_layers": 2}, torch.float32)
    network = make_sliced(pet, 256)
    system = to_system(lattice((4, 4, 4)), network, torch.float32)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        graph, slices = network.prepare([system], None, True)
        _, states = network.evaluate(graph, slices, 1, len(system), ["energy"], [], True)
        saved = sum(kept.values()) + sum(v.nbytes for state in states for v in state.values())
        kept.clear()
        atoms = lattice((4, 4, 4))
        system = to_system(atoms, network, torch.float32, make_leaves(atoms, torch.float32))
        ask(network, [system], ["energy"])
        plain = sum(kept.values())
    messages = graph["weights"].numel() * 64 * 4
    assert saved < 3 * messages
    assert plain > 20 * messages


@pytest.mark.parametrize(
    "hypers, words",
    [
        ({"long_range": {"enable": True}}, "long-range"),
        ({"system_conditioning": True}, "charge and spin"),
    ],
)
def test_refuses(hypers: dict[str, Any], words: str, tmp_path: Path) -> None:
    from metatrain.utils.architectures import get_default_hypers

    if "long_range" in hypers:
        pytest.importorskip("torchpme")
        hypers = {"long_range": {**get_default_hypers("pet")["model"]["long_range"], **hypers["long_range"]}}
    pet = make_pet(tmp_path, hypers)
    with pytest.raises(ModelError, match=words) as error:
        SlicedPET(pet)
    assert "\n" not in str(error.value)


def test_half_neighbor_list_is_an_error(tmp_path: Path) -> None:
    network = make_sliced(make_pet(tmp_path, {}))
    system = to_system(Atoms("SiAl", positions=[[0, 0, 0], [0, 0, 2.4]]), network, torch.float64)
    options = network.requested_neighbor_lists()[0]
    block = system.get_neighbor_list(options)
    half = System(system.types, system.positions, system.cell, system.pbc)
    labels = Labels(block.samples.names, block.samples.values[:1])
    half.add_neighbor_list(options, TensorBlock(block.values[:1], labels, block.components, block.properties))
    with pytest.raises(RuntimeError, match="every pair in both directions"):
        network.prepare([half], None, False)


def test_slices_hold_every_atom_once_and_are_full() -> None:
    """Random numbers of neighbors: each atom is in one rectangle of its width; slices are of one level and within their size."""
    rng = np.random.default_rng(0)
    counts, levels = torch.tensor(rng.integers(0, 40, 500)), torch.tensor(rng.integers(0, 3, 500))
    order, sizes, widths, ranks = sort_atoms(counts, levels, 1)
    slices = plan_slices(sizes, widths, ranks, 200)
    assert sorted(order.tolist()) == list(range(500))
    atom = row = 0
    for level, first, first_row, *rectangles in slices:
        assert (first, first_row) == (atom, row)
        for n, width in zip(rectangles[::2], rectangles[1::2], strict=True):
            inside = order[atom : atom + n]
            assert (counts[inside] + 1 == width).all() and (levels[inside] == level).all()
            atom += n
            row += n * width
        assert row - first_row <= 200
    assert atom == 500 and row == int(counts.sum()) + 500
    assert len(slices) <= np.ceil(row / (200 - 40)) + 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["residual", "feed-forward", "adaptive"])
def test_gpu(name: str, tmp_path: Path) -> None:
    """Rounded rows and large slices on a GPU give the numbers of the CPU."""
    pet = make_pet(tmp_path, ARCHITECTURES[name])
    model = through_a_file(make_sliced(pet), tmp_path)
    names = ["energy", FEATURES, POSITION_GRADIENT]
    for atoms in structures().values():
        system = to_system(atoms, model, torch.float64)
        expected = ask(model.to("cpu"), [system], names)
        found = ask(model.to("cuda"), [system.to(device="cuda")], names)
        for output in names:
            a, b = found[output].block().values.cpu(), expected[output].block().values
            assert (a - b).abs().max() < 1e-11 * max(1.0, float(b.abs().max()))
