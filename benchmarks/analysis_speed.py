"""How long the analysis takes for a model of PET-MAD-DOS's size: 4806 energies, 128 members, 1024 features.

    python benchmarks/analysis_speed.py [--frames 1000] [--temperatures 16] [--members 128] [--folder DIR]

Makes a readout with random weights (2.5 GB at full size) and a trace, analyzes them, and prints a table. Targets on two
cores: 15 s for raw averages, 180 s where every frame and every member is treated one by one. On a machine that does other
things as well, the processor time of a run with one thread (``OMP_NUM_THREADS=1``) bounds what it takes when idle. Memory is that of the process
without file pages: the mapped weights of the ensemble belong to the page cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.signal
import torch

from petdos_md.analysis.analyze import analyze
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.models.readout import Readout
from petdos_md.traces.trace import Trace

N_ATOMS, N_ELECTRONS, FINGERPRINT = 64, 256.0, "b" * 64


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000, help="frames per temperature")
    parser.add_argument("--temperatures", type=int, default=16)
    parser.add_argument("--members", type=int, default=128)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=4806)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary folder by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        readout = write_readout(Path(folder) / "readout.safetensors", args)
        ladder = np.geomspace(500.0, 1200.0, args.temperatures)
        trace = write_trace(Path(folder) / "run.zarr", readout, ladder, args.frames)
        first, n = float(ladder[0]), args.frames
        pairs = f"{n} frames x {args.members} members"
        one = {"temperatures_K": [first], "electronic_temperatures_K": ladder}
        rows = [
            (f"raw, {n} frames in one ensemble, {len(ladder)} electronic temperatures", 15.0, one),
            (f"raw, {n} frames at each of {len(ladder)} temperatures", 15.0, {}),
            (f"frame by frame, {pairs}, identity", 180.0, one | {"transform": identity}),
            (f"frame by frame, {pairs}, Eqs. 11-14", 180.0, one | {"transform": threshold}),
            (f"frame by frame, {pairs}, aligned at E_F", 180.0, one | {"align": "frames", "reference": "fermi"}),
        ]
        print(
            f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {readout.grid.n} energies, {readout.n_features} numbers a frame"
        )
        print(f"{'analysis':<70} {'seconds':>8} {'CPU s':>7} {'target':>7} {'peak memory':>12}")
        for name, target, options in rows:
            seconds, cpu, peak = measured(
                lambda options=options: analyze(trace, readout, **{"reference": "raw"} | options)
            )
            print(f"{name:<70} {seconds:8.1f} {cpu:7.1f} {target:7.0f} {peak / 1e9:9.2f} GB", flush=True)


def identity(dos: np.ndarray, frames: slice) -> np.ndarray:
    """What the machinery itself costs."""
    return dos


def threshold(dos: np.ndarray, frames: slice) -> np.ndarray:
    """Eqs. 11-14 of the paper: the DOS is damped where its Gaussian average (0.3 eV) is small, per atom."""
    # The argument of the logistic function saturates far from the threshold, so single precision is enough.
    smooth = scipy.ndimage.gaussian_filter1d(dos, 0.3 / 0.05, axis=-1, output=np.float32)
    smooth *= 100.0 / N_ATOMS
    smooth -= 10.0
    np.negative(smooth, out=smooth)
    np.exp(smooth, out=smooth)
    smooth += 1.0
    dos /= smooth
    return dos


def write_readout(path: Path, args: argparse.Namespace) -> Readout:
    """Free electrons per atom, plus features and deviations that fluctuate around zero."""
    grid = EnergyGrid(-159.6456, 0.05, args.channels)
    rng = np.random.default_rng(0)
    inside = grid.energies > grid.energies[-1] - 95.0
    free = np.sqrt(np.maximum(grid.energies - grid.energies[inside][0], 0.0)) * 0.13
    weights = 0.02 * rng.normal(size=(args.channels, args.features + 2)) * inside[:, None]
    weights[:, -2], weights[:, -1] = free, 0.0
    deviations = torch.empty(args.members, args.channels, args.features)
    for member in range(args.members):
        deviations[member].normal_(generator=torch.Generator().manual_seed(member)).mul_(0.005)
    deviations -= deviations.mean(dim=0)
    deviations *= torch.as_tensor(inside, dtype=torch.float32)[:, None]
    Readout.save(path, grid, torch.as_tensor(weights, dtype=torch.float32), deviations, FINGERPRINT)
    return Readout.load(path)


def write_trace(path: Path, readout: Readout, ladder: np.ndarray, n: int) -> Trace:
    """Correlated features at every temperature, written in turn as replica exchange does."""
    grid, width = readout.grid, readout.n_features
    info = ModelInfo("random", FINGERPRINT, grid, "separated", width, readout.n_members, {}, "")
    rng = np.random.default_rng(1)
    runs = []
    for _ in ladder:
        noise = rng.normal(size=(n, width), scale=0.3).astype(np.float32)
        features = scipy.signal.lfilter([1.0], [1.0, -0.8], noise, axis=0).astype(np.float32) + 1.0
        features[:, -2:] = N_ATOMS, 900.0
        runs.append(features)
    with Trace.open(path, model=info, engine="benchmark", fsync=False, flush_every=512) as trace:
        for step in range(n):
            for replica, temperature in enumerate(ladder):
                sample = Sample(
                    runs[replica][step],
                    info,
                    N_ATOMS,
                    N_ELECTRONS,
                    1000.0,
                    replica,
                    step,
                    2.0 * step,
                    float(temperature),
                )
                trace.append(sample)
    return Trace.open(path, "r")


def measured(call: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds, processor seconds, and the largest memory beyond that before the call, in bytes."""
    stop, before = threading.Event(), resident_bytes()
    peak = before

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.05):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    call()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stop.set()
    watcher.join()
    return seconds, cpu, peak - before


def resident_bytes() -> float:
    """Anonymous memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024.0 * int(line.split()[1])
    raise RuntimeError("this benchmark reads /proc/self/status of Linux")


if __name__ == "__main__":
    main()
