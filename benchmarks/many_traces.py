"""Memory of ``petdos analyze`` against the number of traces.

    python benchmarks/many_traces.py [--traces 10 100 1000] [--samples 30] [--folder DIR]

Writes small traces of the shipped model (1026 numbers a sample, random around those of a crystal, half of them at 300 K, half at 600 K), runs the command on
them, and prints its peak memory (the largest resident set) and the processor time that it took.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import ase.build
import numpy as np

import petdos_md as pm
from petdos_md.base.sample import Sample


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--samples", type=int, default=30, help="of each trace")
    parser.add_argument("--folder", type=Path, help="for the files; a temporary folder by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        paths = [Path(folder) / f"{i:04d}.zarr" for i in range(max(args.traces))]
        # By a process of its own: the kernel adds the memory of this one, before it becomes petdos, to what it reports for petdos.
        with get_context("spawn").Pool(1) as pool:
            pool.apply(write_traces, (paths, args.samples))
        print("| traces | samples | peak memory (MB) | processor time (s) |\n|---|---|---|---|")
        for n in args.traces:
            memory, seconds = analyze(paths[:n], Path(folder) / f"results-{n}")
            print(f"| {n} | {n * args.samples} | {memory:.0f} | {seconds:.1f} |", flush=True)


def write_traces(paths: list[Path], n_samples: int) -> None:
    """Traces as an array of jobs leaves them, all different."""
    model = pm.DOSModel.load("almgsi-lda", device="cpu")
    crystal = model.evaluate(ase.build.bulk("Al", cubic=True))
    for i, path in enumerate(paths):
        rng = np.random.default_rng(i)
        with pm.Trace.open(path, model=model, engine="ase", timestep_fs=2.0) as trace:
            for k in range(n_samples):
                trace.append(_sample(crystal, rng, k, 300.0 if i % 2 else 600.0))


def analyze(paths: list[Path], output: Path) -> tuple[float, float]:
    """Peak memory (MB) and processor time (s) of the command."""
    petdos = Path(sys.executable).with_name("petdos")
    process = subprocess.Popen([petdos, "analyze", *paths, "-o", output], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("petdos analyze failed")
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def _sample(crystal: Sample, rng: np.random.Generator, k: int, temperature_K: float) -> Sample:
    noise = 1.0 + 1e-4 * rng.standard_normal(crystal.features.shape)
    return replace(
        crystal,
        features=(crystal.features * noise).astype(crystal.features.dtype),
        step=10 * k,
        time_fs=20.0 * k,
        temperature_K=temperature_K,
        kinetic_temperature_K=temperature_K + rng.normal(),
        potential_energy_eV=-100.0 + rng.normal(),
    )


if __name__ == "__main__":
    main()
