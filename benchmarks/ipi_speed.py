"""Cost of sampling an i-PI simulation: batching, plumbing, overhead in replica exchange, memory.

    python benchmarks/ipi_speed.py            # minutes
    python benchmarks/ipi_speed.py --quick    # to see that it works

Claims: one batched call for R replicas is faster than R calls; without the model, sampling 16 replicas every 50 steps costs at most 1 ms a
step; in the 16-replica alloy with the two-head potential, a sample every 50 steps costs at most 5 % of the time; memory does not grow with steps.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import resource
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import torch
from ase import Atoms
from ipi.engine.simulation import Simulation
from ipi.utils.softexit import softexit

from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.engines.ipi.hook import DRIVERS
from petdos_md.ipi import Observer, attach
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

XML = """<simulation verbosity='quiet' threading='False' safe_stride='10'>
<output prefix='run'></output>
<total_steps> 1000000 </total_steps>
<ffdirect name='f'>{potential}</ffdirect>
<smotion mode='remd'><remd><stride> 100 </stride></remd></smotion>
<system_template><labels> [INDEX, TEMP] </labels>{instances}
<template><system prefix='INDEX'>
<initialize nbeads='1'><file mode='ase'> init.xyz </file><velocities mode='thermal' units='kelvin'> TEMP </velocities></initialize>
<forces><force forcefield='f'/></forces>
<ensemble><temperature units='kelvin'> TEMP </temperature></ensemble>
<motion mode='dynamics'><dynamics mode='nvt'><timestep units='femtosecond'> {timestep} </timestep>
<thermostat mode='svr'><tau units='femtosecond'> 100 </tau></thermostat></dynamics></motion>
</system></template></system_template></simulation>"""
FREE = "<pes> dummy </pes>"
TWO_HEAD = f"<pes> custom </pes><pes_path> {DRIVERS}/petdos_potential.py </pes_path><parameters> {{model: almgsi-lda, template: init.xyz}} </parameters>"
ONE_PASS = TWO_HEAD.replace("init.xyz", "init.xyz, features: run.zarr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    model = DOSModel.load("almgsi-lda")
    print(f"{model}, {torch.get_num_threads()} threads")
    batching(model, repeats=1 if quick else 10)
    with tempfile.TemporaryDirectory() as folder, in_folder(folder):
        plumbing(model, samples=3 if quick else 100)
        overhead(model, steps=4 if quick else 100, every=2 if quick else 50)
        memory(model, samples=(2, 4) if quick else (200, 1200))
        memory_of_keys(steps=(10, 100) if quick else (500, 5000))


def batching(model: DOSModel, repeats: int) -> None:
    print("\none call for R structures against R calls")
    for n_atoms, size in ((32, 2), (108, 3)):
        for n_replicas in (1, 4, 16):
            structures = [alloy(size, seed) for seed in range(n_replicas)]
            batched = best(lambda s=structures: model.evaluate(s), repeats)
            single = best(lambda s=structures: [model.evaluate(atoms) for atoms in s], repeats)
            print(
                f"  {n_replicas:2d} x {n_atoms:3d} atoms: {1e3 * batched:7.1f} ms, single {1e3 * single:7.1f} ms, ratio {single / batched:.2f}"
            )


def plumbing(model: DOSModel, samples: int) -> None:
    """What the observer costs beside the model, with a sample at every step."""
    spent = 0.0
    evaluate = model.evaluate

    def timed(structures: list[Atoms]) -> object:
        nonlocal spent
        start = time.perf_counter()
        try:
            return evaluate(structures)
        finally:
            spent += time.perf_counter() - start

    model.evaluate = timed  # type: ignore[method-assign]
    observer, _ = run(model, FREE, samples, every=1, timestep=1e-3)
    del model.evaluate
    each = 1e3 * (observer.elapsed_s - spent) / samples
    print(
        f"\nplumbing without the model: {each:.2f} ms a sample of 16 replicas, {each / 50:.3f} ms a step with one every 50 steps"
    )


def overhead(model: DOSModel, steps: int, every: int) -> None:
    print("16 replicas of 32 atoms, two-head potential: features by a pass of their own, or with the forces")
    for stride in (every, 1):
        times: dict[str, list[float]] = {"apart": [], "together": []}
        never = []
        for _ in range(3):
            never.append(run(model, TWO_HEAD, steps, every=10 * steps, timestep=2.0)[1])
            times["apart"].append(run(model, TWO_HEAD, steps, every=stride, timestep=2.0)[1])
            times["together"].append(run(model, ONE_PASS, steps, every=stride, timestep=2.0)[1])
        added = [statistics.median(t / n - 1 for t, n in zip(values, never, strict=True)) for values in times.values()]
        print(
            f"  a sample every {stride} steps: {1e3 * statistics.median(never) / steps:.0f} ms a step without, sampling adds "
            f"{100 * added[0]:.1f} % apart, {100 * added[1]:.1f} % together"
        )


def memory(model: DOSModel, samples: tuple[int, int]) -> None:
    used = []
    for n in samples:
        run(model, FREE, n, every=1, timestep=1e-3)
        used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(
        f"largest memory: {used[0]:.0f} MB with {samples[0]} samples of 16 replicas, {used[1]:.0f} MB with {samples[1]}"
    )


def memory_of_keys(steps: tuple[int, int]) -> None:
    """What a trace keeps in memory in order to store no step of a replica twice, after so many samplings of 16 replicas."""
    grid = EnergyGrid(0.0, 0.05, 2)
    info = ModelInfo("short", "0" * 64, grid, "direct", 2, 0, {}, "")
    sample = Sample(np.zeros(2, np.float32), info, 1, 1.0, 1.0, temperature_K=300.0)
    tracemalloc.start()
    with Trace.open("long.zarr", model=info, fsync=False, flush_every=1024) as trace:
        known = []
        for step in range(1, steps[1] + 1):
            for replica in range(16):
                trace.append(sample, step=50 * step, replica=replica)
            if step in steps:
                trace.flush()
                gc.collect()
                known.append(tracemalloc.get_traced_memory()[0] / 1024)
    tracemalloc.stop()
    print(
        f"kept by a trace: {known[0]:.0f} kB after {16 * steps[0]} samples, {known[1]:.0f} kB after {16 * steps[1]} (features of 2 numbers)"
    )


def run(model: DOSModel, potential: str, steps: int, every: int, timestep: float) -> tuple[Observer, float]:
    """Some steps of 16 replicas; the observer, and processor seconds without the first step."""
    folder = Path(tempfile.mkdtemp(dir="."))
    ase.io.write(folder / "init.xyz", alloy(2, 0), format="extxyz")
    instances = "".join(f"<instance> [{i}, {500 * 2.4 ** (i / 15):.2f}] </instance>" for i in range(16))
    (folder / "input.xml").write_text(XML.format(potential=potential, instances=instances, timestep=timestep))
    softexit.reset()
    with in_folder(folder), contextlib.redirect_stdout(io.StringIO()):
        with open("input.xml") as file:
            simulation = Simulation.load_from_xml(file)
        simulation.tsteps = 1
        simulation.run()
        simulation.step, simulation.tsteps = 1, steps + 1
        observer = attach(simulation, model, "run.zarr", every=every)
        start = time.process_time()  # what else this machine does must not count
        simulation.run()
        total = time.process_time() - start
        observer.close()
        softexit.cleanup(status="success")
    softexit.reset()
    return observer, total


@contextlib.contextmanager
def in_folder(folder: str | Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def alloy(size: int, seed: int) -> Atoms:
    atoms = ase.build.bulk("Al", cubic=True) * (size, size, size)
    rng = np.random.default_rng(seed)
    atoms.symbols[rng.choice(len(atoms), len(atoms) // 4, replace=False)] = "Mg"
    atoms.rattle(0.08, seed=seed)
    return atoms


def best(call: object, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return min(times[1:])


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
