"""A sample on a GPU: milliseconds and peak memory against the stock network on the same card, largest systems, forces.

    python benchmarks/gpu.py                        (needs a CUDA device; metatrain makes the models)
    python benchmarks/gpu.py --tf32                 (products of matrices in TF32)
    python benchmarks/gpu.py --models FOLDER        (models that `--write FOLDER` made, on a machine without metatrain)

A network of the size of PET-MAD-DOS with random weights. Every row is measured in this run: neighbor lists are not counted for the two
networks, and are for the sample (`DOSModel.evaluate`) and all forces. Ratios are of the same run. Then, what sampling adds to molecular
dynamics whose potential (EMT) runs on the CPU, with samples taken between steps and beside them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from metatomic.torch import ModelEvaluationOptions, ModelOutput

from petdos_md.ase import DOSObserver
from petdos_md.models.files import as_written, load_file
from petdos_md.models.model import DOSModel

STOCK_FEATURES = "mtt::aux::dos_last_layer_features"
GRID_START, N_CHANNELS = -20.0, 200
"""The readout is not what is measured here."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder with ours.pt, ours.readout.safetensors and stock.pt")
    parser.add_argument("--write", type=Path, help="only write such a folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in products of matrices")
    parser.add_argument(
        "--repeats", type=int, nargs="+", default=[2, 3, 4, 8, 16, 23], help="cells of 8 atoms along each axis"
    )
    args = parser.parse_args()
    if args.write is not None:
        write_models(args.write)
        return
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    with tempfile.TemporaryDirectory() as folder:
        models = args.models or write_models(Path(folder))
        run(models, args.device, args.repeats)
        overheads(DOSModel.load(models / "ours.pt", args.device), Path(folder))


def write_models(folder: Path) -> Path:
    """Export a checkpoint with random weights of few different values, whose files compress well; returns the folder."""
    from metatrain.utils.io import load_model

    from petdos_md.models.export import export_model
    from petdos_md.models.testing import PET_MAD_DOS_SIZE, write_checkpoints

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, _ = write_checkpoints(
        folder, PET_MAD_DOS_SIZE, symbols=["Si", "Al"], n_channels=N_CHANNELS, energy=True
    )
    content = torch.load(checkpoint, weights_only=False)
    for state in (content["model_state_dict"], content["best_model_state_dict"]):
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1:
                step = float(value.abs().mean()) or 1.0
                state[name] = (value / step).round() * step
    torch.save(content, checkpoint)
    export_model(checkpoint, folder / "ours.pt", grid_start=GRID_START, electrons={"Si": 4, "Al": 3})
    load_model(checkpoint).export().save(str(folder / "stock.pt"))
    checkpoint.unlink()
    return folder


def run(folder: Path, device: str, repeats: list[int]) -> None:
    """All sizes."""
    print(
        f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}, float32, TF32 {'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'}"
    )
    ours, cpu = DOSModel.load(folder / "ours.pt", device), DOSModel.load(folder / "ours.pt", "cpu")
    stock = load_file(folder / "stock.pt").to(torch.device(device))
    small = silicon(2)
    expected, found = cpu.evaluate_with_forces(small), ours.evaluate_with_forces(small)
    pairs = ((expected[0].features, found[0].features), (expected[2], found[2]), (expected[3], found[3]))
    told = [f"{np.abs(a.astype(float) - b).max() / np.abs(a).max():.1e}" for a, b in pairs]
    print(f"GPU against CPU, relative to the largest: features {told[0]}, forces {told[1]}, stress {told[2]}")
    print(
        "   atoms   sample ms  network ms  stock ms  network/stock  sample GB  stock GB   forces ms  stock ms  forces/stock  forces GB"
    )
    for n in repeats:
        print(row(ours, stock, silicon(n)), flush=True)


def overheads(model: DOSModel, folder: Path) -> None:
    """Molecular dynamics of aluminium on the CPU: milliseconds that a sample adds to a step, alternating rounds."""
    print("\n   atoms  step ms  sample between steps, ms  beside them, ms")
    for n in (3, 5, 8):
        atoms = ase.build.bulk("Al", cubic=True) * (n, n, n)
        atoms.rattle(0.05, seed=n)
        times: dict[str, list[float]] = {"none": [], "between": [], "beside": []}
        for number in range(5):
            for kind, found in times.items():
                found.append(step_ms(atoms, model, kind, folder / f"{n}-{number}-{kind}.zarr"))
        none, between, beside = (statistics.median(found[1:]) for found in times.values())
        print(f"{len(atoms):8d}  {none:7.1f}  {between - none:24.1f}  {beside - none:15.1f}", flush=True)


def step_ms(atoms: Atoms, model: DOSModel, kind: str, trace: Path, n_steps: int = 20) -> float:
    """Of dynamics of which every second step is sampled, if at all: milliseconds a sample, or two steps."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    atoms.get_forces()
    if kind == "none":
        start = time.perf_counter()
        dynamics.run(n_steps)
    else:
        with DOSObserver(atoms, model, trace, 300, dynamics=dynamics, overlap=kind == "beside") as observer:
            observer()  # the first one, to warm up
            dynamics.attach(observer, interval=2)
            start = time.perf_counter()
            dynamics.run(n_steps)
            observer.flush()
    return 2e3 * (time.perf_counter() - start) / n_steps


def row(ours: DOSModel, stock: Any, atoms: Atoms) -> str:
    """One line of the table; what does not fit into the memory of the card is a dash."""
    evaluator = ours.evaluator
    system = evaluator.system(atoms)
    sample = measured(lambda: ours.evaluate(atoms))
    network = measured(lambda: ask(evaluator.module, system, ["petdos::features"]))
    reference = measured(lambda: ask(stock, system, [STOCK_FEATURES]))
    forces = measured(lambda: ours.evaluate_with_forces(atoms))
    plain = measured(lambda: gradients(stock, evaluator.system(atoms)))
    return (
        f"{len(atoms):8d}  {_ms(sample)}  {_ms(network)}  {_ms(reference)}  {_ratio(network, reference):>13}  {_gb(sample)}  {_gb(reference)}"
        f"  {_ms(forces)}  {_ms(plain)}  {_ratio(forces, plain):>12}  {_gb(forces)}"
    )


def silicon(repeats: int) -> Atoms:
    """Rattled silicon with a third of aluminium."""
    atoms = ase.build.bulk("Si", a=5.43, cubic=True).repeat(repeats)
    atoms.symbols[::3] = "Al"
    atoms.rattle(0.3, seed=repeats)
    return atoms


def ask(module: Any, system: Any, names: list[str]) -> Any:
    """Outputs of one system."""
    outputs = {name: ModelOutput(sample_kind="system") for name in names}
    with torch.no_grad(), as_written():
        return module([system], ModelEvaluationOptions("angstrom", outputs), check_consistency=False)


def gradients(module: Any, system: Any) -> torch.Tensor:
    """Derivatives of the energy by automatic differentiation, as metatomic's engines do."""
    from metatomic.torch import System, register_autograd_neighbors

    positions = system.positions.detach().requires_grad_(True)
    moved = System(system.types, positions, system.cell, system.pbc)
    for options in system.known_neighbor_lists():
        neighbors = system.get_neighbor_list(options)
        register_autograd_neighbors(moved, neighbors)
        moved.add_neighbor_list(options, neighbors)
    with as_written():
        result = module(
            [moved], ModelEvaluationOptions("angstrom", {"energy": ModelOutput(unit="eV", sample_kind="system")}), False
        )
    return torch.autograd.grad(result["energy"].block().values.sum(), positions)[0]


def measured(function: Callable[[], Any], n: int = 5) -> tuple[float, float] | None:
    """Median milliseconds after two calls to warm up, and peak memory in GB; None if the memory does not suffice."""
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        times = []
        for _ in range(n + 2):
            torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
            if times[-1] > 3000:
                break
        return statistics.median(times[min(2, len(times) - 1) :]), (torch.cuda.max_memory_allocated() - before) / 1e9
    except RuntimeError as error:  # also those that TorchScript wraps
        if "out of memory" not in str(error):
            raise
        return None


def _ms(value: tuple[float, float] | None) -> str:
    return f"{'-' if value is None else f'{value[0]:.1f}':>9}"


def _gb(value: tuple[float, float] | None) -> str:
    return f"{'-' if value is None else f'{value[1]:.2f}':>9}"


def _ratio(a: tuple[float, float] | None, b: tuple[float, float] | None) -> str:
    return "-" if a is None or b is None else f"{a[0] / b[0]:.2f}"


if __name__ == "__main__":
    main()
