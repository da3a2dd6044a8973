"""Cost of a features evaluation: the sliced network, the same network whole, and metatrain's own PET.

usage: python benchmarks/network_speed.py [--threads 1 2] [--sizes 64 216 512] [--repeats 7] [--large 97336 262144] [--profile]

All three have the same random parameters, in the size of PET-MAD-DOS, and are saved, loaded and executed as written. Runs alternate; each
is on another structure, so that numbers of neighbors vary as in molecular dynamics. Medians of ratios are printed, and the largest
deviation of features from metatrain's relative to the largest feature. ``--large`` adds the cost per atom of large systems, with the
last number of threads, and ``--profile`` where the time of the sliced network goes: its products of matrices beside what they would take at
the speed of MKL on this machine, and the rest by kind.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import ase
import numpy as np
import torch
from ase.build import bulk
from cost_per_frame import product_speed
from metatomic.torch import AtomisticModel, ModelEvaluationOptions, ModelOutput, System, load_atomistic_model
from torch.utils.flop_counter import FlopCounterMode
from vesin.metatomic import NeighborList

from petdos_md.models.checkpoints import load_networks, make_backbone
from petdos_md.models.files import as_written
from petdos_md.models.network import SlicedPET
from petdos_md.models.output_names import CUTOFF_SUM_OUTPUT, LAST_LAYER_OUTPUT
from petdos_md.models.pointwise import replace_linear_layers
from petdos_md.models.testing import PET_MAD_DOS_SIZE, write_checkpoints

STOCK_FEATURES = "mtt::aux::dos_last_layer_features"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 216, 512])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--large", type=int, nargs="*", default=[], metavar="N", help="also so many atoms, in minutes")
    parser.add_argument("--profile", action="store_true", help="also where the time goes, at the largest of the sizes")
    arguments = parser.parse_args()
    models = make_models()
    print(
        "threads  structure        atoms  neighbors   ms/atom: sliced  whole  stock   sliced/whole  sliced/stock  deviation"
    )
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for size in arguments.sizes:
            for kind in (rattled, liquid):
                compare(models, kind, size, threads, arguments.repeats)
    for n_atoms in arguments.large:
        print_large(models["sliced"], n_atoms)
    if arguments.profile:
        print_profile(models["sliced"], max(arguments.sizes))


def make_models() -> dict[str, tuple[AtomisticModel, tuple[str, ...]]]:
    """The three models and what they are asked for, saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = write_checkpoints(folder, PET_MAD_DOS_SIZE, symbols=["Al", "Si"], n_channels=200)
        pet, _ = load_networks(path, None, "mtt::dos")
        backbone, whole = (make_backbone(pet, "mtt::dos") for _ in range(2))
        replace_linear_layers(whole)
        exported = {"sliced": SlicedPET(backbone).export(), "whole": whole.export(), "stock": pet.export()}
        models = {}
        for name, model in exported.items():
            file = Path(folder) / f"{name}.pt"
            model.save(str(file))
            outputs = (STOCK_FEATURES,) if name == "stock" else (LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT)
            models[name] = (load_atomistic_model(str(file)), outputs)
    return models


def rattled(n_atoms: int, seed: int) -> ase.Atoms:
    """Silicon at its density, every atom displaced by 0.35 angstrom."""
    repeats = round((n_atoms / 8) ** (1 / 3))
    atoms = bulk("Si", "diamond", a=5.43, cubic=True) * ((repeats,) * 3)
    atoms.rattle(0.35, seed=seed)
    return atoms


def liquid(n_atoms: int, seed: int) -> ase.Atoms:
    """Random positions at the density of liquid silicon, 0.055 per cubic angstrom, pushed 2.3 angstrom apart."""
    rng = np.random.default_rng(seed)
    length = (n_atoms / 0.055) ** (1 / 3)
    atoms = ase.Atoms(f"Si{n_atoms}", positions=rng.uniform(0, length, (n_atoms, 3)), cell=[length] * 3, pbc=True)
    for _ in range(60):
        first, _, distances, vectors = _close_pairs(atoms, 2.3)
        push = np.zeros((n_atoms, 3))
        np.add.at(push, first, -0.5 * ((2.3 - distances) / (distances + 0.05))[:, None] * vectors)
        atoms.positions += 0.8 * push
    atoms.wrap()
    return atoms


def compare(models: dict, kind, size: int, threads: int, repeats: int) -> None:
    """Print one line."""
    times: dict[str, list[float]] = {name: [] for name in models}
    deviation, n_neighbors = 0.0, 0.0
    for repeat in range(-2, repeats):
        atoms = kind(size, 100 + repeat)
        features = {}
        for name, (model, outputs) in models.items():
            features[name], seconds = run(model, outputs, atoms)
            if repeat >= 0:
                times[name].append(seconds / len(atoms) * 1e3)
        worst = np.abs(features["sliced"] - features["stock"]).max() / np.abs(features["stock"]).max()
        deviation = max(deviation, float(worst))
        n_neighbors = len(_close_pairs(atoms, PET_MAD_DOS_SIZE["cutoff"])[0]) / len(atoms)
    ms = {name: np.array(values) for name, values in times.items()}
    to_whole, to_stock = (np.median(ms["sliced"] / ms[name]) for name in ("whole", "stock"))
    columns = "  ".join(f"{np.median(values):5.2f}" for values in ms.values())
    print(
        f"{threads:7d}  {kind.__name__:15s}  {size:5d}  {n_neighbors:9.1f}            {columns}"
        f"   {to_whole:12.2f}  {to_stock:12.2f}  {deviation:9.1e}",
        flush=True,
    )


def run(model: AtomisticModel, outputs: tuple[str, ...], atoms: ase.Atoms) -> tuple[np.ndarray, float]:
    """Features and seconds, without those of the neighbor list."""
    types = torch.tensor(atoms.numbers, dtype=torch.int32)
    positions, cell = (torch.tensor(x, dtype=torch.float32) for x in (atoms.positions, atoms.cell.array))
    system = System(types, positions, cell, torch.tensor(atoms.pbc))
    for options in model.requested_neighbor_lists():
        NeighborList(options, "angstrom", skin=0.0).add_neighbor_list([system], copy=True)
    asked = ModelEvaluationOptions("angstrom", {name: ModelOutput(sample_kind="system") for name in outputs})
    with torch.no_grad(), as_written():
        # Beside other work the time of the processor says more, but only one thread's does not count waiting.
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        result = model([system], asked, check_consistency=False)
        seconds = clock() - start
    return result[outputs[0]].block().values[0].double().numpy(), seconds


def print_large(sliced: tuple[AtomisticModel, tuple[str, ...]], n_atoms: int) -> None:
    """Cost per atom relative to that of 512 atoms, before and after."""
    atoms = rattled(n_atoms, 0)
    small = [run(*sliced, rattled(512, seed))[1] / 512 for seed in range(4)]
    seconds = run(*sliced, atoms)[1]
    small += [run(*sliced, rattled(512, seed))[1] / 512 for seed in range(4)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    large = seconds / len(atoms)
    print(
        f"{len(atoms)} atoms: {seconds:.0f} s, {large * 1e3:.2f} ms an atom, {large / np.median(small):.2f} of the cost at 512 atoms; "
        f"peak memory {peak:.1f} GB",
        flush=True,
    )


KINDS = {
    "linear layers": ("convolution", "mm", "addmm"),
    "attention": ("_scaled_dot_product_flash_attention_for_cpu", "bmm", "_softmax"),
    "copies: gather, sort, join": (
        "copy_",
        "cat",
        "index",
        "index_select",
        "index_copy_",
        "index_add_",
        "scatter_add_",
        "sort",
    ),
    "activations, normalization, sums": (
        "silu",
        "silu_",
        "native_layer_norm",
        "sigmoid",
        "mul",
        "mul_",
        "add",
        "add_",
        "sum",
    ),
}
"""Operators of torch by what they do."""


def print_profile(sliced: tuple[AtomisticModel, tuple[str, ...]], n_atoms: int) -> None:
    """Shares of the time by kind of operator, and the time of the products at the speed of the machine."""
    for seed in range(3):
        run(*sliced, liquid(n_atoms, seed))
    atoms = liquid(n_atoms, 3)
    with FlopCounterMode(display=False) as counter:
        run(*sliced, atoms)
    with torch.profiler.profile() as profile:
        run(*sliced, atoms)
    times: dict[str, float] = {}
    for event in profile.key_averages():
        if event.key.startswith("aten::"):
            times[event.key.removeprefix("aten::").removeprefix("mkldnn_")] = event.self_cpu_time_total / 1e6
    total = sum(times.values())
    gflop, speeds = counter.get_total_flops() / 1e9, (product_speed(), product_speed(as_convolution=True))
    print(
        f"{n_atoms} atoms (liquid), {torch.get_num_threads()} threads: {total:.3f} s. {gflop:.1f} GFLOP in products of matrices; this machine does "
        f"{speeds[0]:.0f} GFLOP/s with MKL, {speeds[1]:.0f} with oneDNN: {gflop / max(speeds):.3f} s, {gflop / max(speeds) / total:.0%} of the time"
    )
    for kind, names in KINDS.items():
        print(f"  {sum(times.pop(name, 0.0) for name in names) / total:5.1%}  {kind}")
    largest = ", ".join(f"{name} {s / total:.1%}" for name, s in sorted(times.items(), key=lambda item: -item[1])[:3])
    print(f"  {sum(times.values()) / total:5.1%}  the rest; largest: {largest}")


def _close_pairs(atoms: ase.Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from vesin import ase_neighbor_list

    return ase_neighbor_list("ijdD", atoms, cutoff)


if __name__ == "__main__":
    main()
