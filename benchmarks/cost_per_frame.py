"""Cost of one sample against the stock evaluation of the same network, at the size of PET-MAD-DOS.

A checkpoint with random weights (85 elements, 4806 channels, 128 members) is built with metatrain, exported twice (by metatrain
and by ``petdos export``), and evaluated on GaAs whose atoms move between evaluations as in molecular dynamics. All contenders
take turns on the same structures, so that a change of the machine's speed hits them alike; ratios are taken turn by turn.

    python benchmarks/cost_per_frame.py [--sizes 2 3 4] [--turns 7] [--folder DIR]

The folder keeps the 8 GB of models for the next run; the first run builds them (4 minutes, 14 GB of memory).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.build
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator

from petdos_md.base.quiet import quiet

LATTICE_A = 5.75
GRID_START = -159.6456


def build(folder: Path) -> None:
    """Both exports of one checkpoint."""
    from metatrain.utils.io import load_model

    from petdos_md.models.export import export_model
    from petdos_md.models.testing import PET_MAD_DOS_SIZE, PET_MAD_SYMBOLS, write_checkpoints

    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    print("building models ...", flush=True)
    size = {"symbols": PET_MAD_SYMBOLS, "n_channels": 4806, "energy": True}
    pet, llpr = write_checkpoints(folder, PET_MAD_DOS_SIZE, n_members=128, **size)
    assert llpr is not None
    report = export_model(pet, folder / "exported.pt", llpr=llpr, grid_start=GRID_START)
    print(
        f"exported equals stock to {report.dos_deviation:.1e} (DOS), {report.ensemble_deviation:.1e} (members), relative"
    )
    load_model(llpr).export().save(str(folder / "stock.pt"))
    load_model(pet).export().save(str(folder / "stock-pet.pt"))
    llpr.unlink()
    (folder / "done").touch()


def gallium_arsenide(repeats: int) -> Atoms:
    return ase.build.bulk("GaAs", "zincblende", LATTICE_A, cubic=True) * (repeats, repeats, repeats)


def stock_runner(path: Path, output: str, sample_kind: str = "system") -> Callable[[Atoms], None]:
    """Evaluate one output of a stock model through metatomic's ASE calculator, per structure or per atom."""
    from metatomic.torch import ModelOutput

    with quiet():
        from metatomic_ase import MetatomicCalculator

    calculator = MetatomicCalculator(str(path), device="cpu", check_consistency=False)

    def run(atoms: Atoms) -> None:
        with torch.no_grad():
            calculator.run_model(atoms, {output: ModelOutput(sample_kind=sample_kind)})

    return run


def exported_runner(path: Path) -> Callable[[Atoms], None]:
    from petdos_md.models.model import DOSModel

    model = DOSModel.load(path, device="cpu")
    return lambda atoms: model.evaluate(atoms)  # type: ignore[return-value]


def contenders(folder: Path) -> dict[str, Callable[[Atoms], None]]:
    return {
        "sample": exported_runner(folder / "exported.pt"),
        "stock features": stock_runner(folder / "stock-pet.pt", "mtt::aux::dos_last_layer_features"),
        "stock DOS": stock_runner(folder / "stock-pet.pt", "mtt::dos"),
        "stock ensemble": stock_runner(folder / "stock.pt", "mtt::aux::dos_ensemble"),
        "- per atom": stock_runner(folder / "stock.pt", "mtt::aux::dos_ensemble", "atom"),
    }


def timed(run: Callable[[Atoms], None], atoms: Atoms) -> float:
    start = time.perf_counter()
    run(atoms)
    return time.perf_counter() - start


def cost_table(folder: Path, sizes: list[int], turns: int) -> None:
    """Seconds per evaluation, and ratios of the sample and of two lower limits to each stock evaluation.

    The limits: the network alone (stock features), and its products of matrices at the speed of this machine.
    """
    rows = contenders(folder)
    gflops = product_speed()
    print(f"products of matrices: {gflops:.0f} GFLOP/s on this machine")
    print(
        f"\n{'atoms':>6} {'contender':<16} {'median s':>9} {'slowest/median':>15} {'sample/this':>12} {'aim':>9}"
        f" {'features/this':>14} {'products/this':>14}"
    )
    limits = {"sample": "<= 3", "stock DOS": "<= 0.40", "stock ensemble": "<= 0.15", "- per atom": "<= 0.10"}
    features_limits = {64: "<= 0.55", 216: "<= 0.50", 512: "<= 0.45"}
    for repeats in sizes:
        atoms = gallium_arsenide(repeats)
        limits["stock features"] = features_limits.get(len(atoms), "")
        rng = np.random.default_rng(repeats)
        times: dict[str, list[float]] = {name: [] for name in rows}
        for turn in range(turns * (2 if repeats < 3 else 1) + 2):
            atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
            for name, run in rows.items():
                seconds = timed(run, atoms)
                if turn >= 2:
                    times[name].append(seconds)
        ours, features = times["sample"], times["stock features"]
        products_s = product_gflop(rows["stock features"], atoms) / gflops
        for name, own in times.items():
            middle = statistics.median(own)
            print(f"{len(atoms):>6} {name:<16} {middle:9.3f} {max(own) / middle:15.2f}", end="")
            if name == "sample":
                print(f" {'':>12} {limits[name]:>9}")
                continue
            ratio, limit = (statistics.median(a / b for a, b in zip(x, own, strict=True)) for x in (ours, features))
            print(f" {ratio:12.3f} {limits[name]:>9} {limit:14.3f} {products_s / middle:14.3f}")


def product_speed(as_convolution: bool = False) -> float:
    """GFLOP/s of this machine at a product of the shape that a PET of this size computes for 256 atoms.

    :param as_convolution: over one point, which goes to oneDNN in place of MKL, and is how the exported network asks for it
    """
    rows, inner, columns = 4352, 256, 768
    multiply = torch.nn.functional.conv1d if as_convolution else torch.mm
    a, b = (
        (torch.randn(1, inner, rows), torch.randn(columns, inner, 1))
        if as_convolution
        else (torch.randn(rows, inner), torch.randn(inner, columns))
    )
    fastest = min(timed(lambda _: multiply(a, b), Atoms()) for _ in range(50))  # type: ignore[arg-type, return-value]
    return 2 * rows * inner * columns / fastest / 1e9


def product_gflop(run: Callable[[Atoms], None], atoms: Atoms) -> float:
    """Floating-point operations of the products of matrices in one evaluation, in units of 1e9; those of attention are not counted."""
    with warnings.catch_warnings(), torch.profiler.profile(with_flops=True) as profile:
        warnings.simplefilter("ignore")  # operations that the profiler cannot count
        run(atoms)
    return sum(e.flops for e in profile.key_averages() if e.key in ("aten::mm", "aten::addmm", "aten::bmm")) / 1e9


def shares(folder: Path, repeats: int, turns: int = 20) -> None:
    """Where the time of one sample goes."""
    from petdos_md.models.model import DOSModel

    model, atoms = DOSModel.load(folder / "exported.pt", device="cpu"), gallium_arsenide(repeats)
    evaluator, rng = model.evaluator, np.random.default_rng(1)
    spent: dict[str, list[float]] = {"structure": [], "neighbors": [], "network": [], "features": []}
    for _ in range(turns + 2):
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        times = [time.perf_counter()]
        system = evaluator._system(atoms)
        times.append(time.perf_counter())
        evaluator._add_neighbors([system])
        times.append(time.perf_counter())
        with torch.no_grad():
            result = evaluator._forward([system], model._outputs, "system")
        times.append(time.perf_counter())
        model._sample(atoms, evaluator._arrays(result, model._outputs)[0])
        times.append(time.perf_counter())
        for name, seconds in zip(spent, np.diff(times), strict=True):
            spent[name].append(seconds)
    medians = {name: statistics.median(values[2:]) for name, values in spent.items()}
    total = sum(medians.values())
    shown = ", ".join(f"{name} {1e3 * s:.2f} ms ({100 * s / total:.1f} %)" for name, s in medians.items())
    print(f"\none sample of {len(atoms)} atoms, {1e3 * total:.1f} ms: {shown}")


def jitter(folder: Path, turns: int = 40) -> None:
    """The slowest evaluation after warm-up, while the number of neighbors changes in every frame."""
    run, atoms = exported_runner(folder / "exported.pt"), gallium_arsenide(2)
    rng = np.random.default_rng(0)
    times = []
    for _ in range(turns):
        atoms.positions += rng.normal(0.0, 0.08, atoms.positions.shape)
        times.append(timed(run, atoms))
    warm = times[2:]
    print(f"\n{turns} frames of 64 atoms: first {times[0]:.3f} s, median {statistics.median(warm):.3f} s, ", end="")
    print(f"slowest/median after warm-up {max(warm) / statistics.median(warm):.2f} (aim <= 3)")


def high_water_gib() -> float:
    """Largest memory that this process has held so far (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def peak_memory(folder: Path, which: str, repeats: int) -> dict[str, float]:
    """Peak memory of a fresh process that loads one model and evaluates it twice, in GiB."""
    # VmHWM begins anew with each program, unlike ru_maxrss, which a child inherits.
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import cost_per_frame as c; from pathlib import Path\n"
        "folder = Path(sys.argv[2]); which = sys.argv[3]\n"
        "run = c.exported_runner(folder / 'exported.pt') if which == 'exported' else c.stock_runner(folder / 'stock-pet.pt', 'mtt::dos')\n"
        "atoms = c.gallium_arsenide(1); run(atoms); loaded = c.high_water_gib()\n"
        "atoms = c.gallium_arsenide(int(sys.argv[4])); atoms.rattle(0.05); run(atoms); run(atoms)\n"
        "print(json.dumps({'loaded': loaded, 'peak': c.high_water_gib()}))"
    )
    arguments = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        str(Path(__file__).parent),
        str(folder),
        which,
        str(repeats),
    ]
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory_table(folder: Path, repeats: int) -> None:
    ours, stock = (peak_memory(folder, which, repeats) for which in ("exported", "stock"))
    print(f"\npeak memory of the whole process at {8 * repeats**3} atoms: exported {ours['peak']:.2f} GiB ", end="")
    print(
        f"(loaded {ours['loaded']:.2f}), stock DOS {stock['peak']:.2f} GiB (loaded {stock['loaded']:.2f}), ratio {ours['peak'] / stock['peak']:.2f} (aim <= 0.5)"
    )


def md_overhead(folder: Path, repeats: int, steps: int) -> None:
    """Share of the observer in a run with a potential of the same size, for one sample every 10 steps."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    with quiet():
        from metatomic_ase import MetatomicCalculator

    from petdos_md.ase import DOSCalculator, DOSObserver
    from petdos_md.models.model import DOSModel
    from petdos_md.traces.trace import Trace

    model = DOSModel.load(folder / "exported.pt", device="cpu", electrons={"Ga": 13, "As": 5})
    potentials: dict[str, Calculator] = {
        "another potential": MetatomicCalculator(str(folder / "stock-pet.pt"), device="cpu"),
        "shared backbone": DOSCalculator(model),
    }
    print(
        f"\n{'potential':<20} {'steps':>6} {'samples':>8} {'MD s':>8} {'observer s':>11} {'overhead %':>11} {'aim':>9}"
    )
    for name, calculator in potentials.items():
        atoms = gallium_arsenide(repeats)
        atoms.rattle(0.02, seed=1)
        atoms.calc = calculator
        atoms.get_forces()
        with tempfile.TemporaryDirectory() as scratch:
            trace = Trace.open(Path(scratch) / "run.zarr", model=model)
            spent: list[float] = []
            # A random network drives atoms anywhere: a tiny step keeps the geometry while all work is done.
            dynamics = VelocityVerlet(atoms, 0.001 * units.fs)
            observer = DOSObserver(atoms, model, trace, temperature_K=300.0, dynamics=dynamics)

            def sample(observer: DOSObserver = observer, spent: list[float] = spent) -> None:
                spent.append(timed(lambda _: observer(), observer.atoms))

            dynamics.attach(sample, interval=10)
            total = timed(lambda _, d=dynamics: d.run(steps), atoms)  # type: ignore[misc]
            trace.close()
        # Step 0 is sampled too: the share is that of one sample in ten steps.
        share = 100 * statistics.median(spent) / (10 * (total - sum(spent)) / steps)
        limit = "<= 6" if name == "another potential" else "<= 2"
        print(
            f"{name:<20} {steps:>6} {len(spent):>8} {total - sum(spent):8.2f} {sum(spent):11.3f} {share:11.2f} {limit:>9}"
        )
    print(f"a sample of this model takes {model.readout.n_features * 4 / 1000:.1f} kB in the trace (aim <= 10 kB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "petdos-benchmark-models")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[2, 3, 4], help="cubic cells along each axis (8 atoms each)"
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--md-steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler of torch would report each start and stop
    build(arguments.folder)
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    cost_table(arguments.folder, arguments.sizes, arguments.turns)
    for repeats in arguments.sizes:
        shares(arguments.folder, repeats)
    jitter(arguments.folder)
    memory_table(arguments.folder, max(arguments.sizes))
    md_overhead(arguments.folder, 3, arguments.md_steps)


if __name__ == "__main__":
    main()
