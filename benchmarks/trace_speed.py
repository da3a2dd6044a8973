"""What a sample costs in the trace: seconds and bytes, beside appending to the same arrays with stock zarr.

Prints a table; ratios are of one run, rounds of both ways alternating. Usage: python benchmarks/trace_speed.py [--n-features 1026] [--dir .]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.traces.trace import Trace

BATCH = 64  # the default of flush_every, and one chunk of features


def make_samples(n: int, n_features: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    model = ModelInfo("speed", "0" * 64, EnergyGrid(-159.6, 0.05, 4806), "separated", n_features, 128, {"Ga": 13.0}, "")
    return [
        Sample(
            rng.standard_normal(n_features, dtype=np.float32),
            model,
            216,
            1944.0,
            4900.0,
            0,
            i,
            2.0 * i,
            300.0,
            301.0,
            -1.0,
        )
        for i in range(n)
    ]


class WithTrace:
    def __init__(self, path: Path, fsync: bool, model: ModelInfo) -> None:
        self.path = path
        self.trace = Trace.open(path, model=model, flush_every=BATCH, flush_interval_s=1e9, fsync=fsync)

    def append(self, samples: list[Sample]) -> None:
        for sample in samples:
            self.trace.append(sample)


class WithStockZarr:
    """Resize and assign, every array of the same layout; a batch at a time, like a flush, or each sample by itself."""

    def __init__(self, path: Path, like: Path, batched: bool) -> None:
        self.path, self.batched = path, batched
        group = zarr.create_group(path)
        self.arrays = {
            name: group.create_array(
                name, shape=array.shape, chunks=array.chunks, dtype=array.dtype, compressors=None, filters=None
            )
            for name, array in zarr.open_group(like, mode="r").arrays()
        }

    def append(self, samples: list[Sample]) -> None:
        for batch in [samples] if self.batched else [[sample] for sample in samples]:
            for name, array in self.arrays.items():
                n = array.shape[0]
                array.resize((n + len(batch), *array.shape[1:]))
                array[n:] = np.array([getattr(sample, name) for sample in batch])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-features", type=int, default=1026)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=None, help="where to write (default: the temporary directory)")
    options = parser.parse_args()
    samples = make_samples(BATCH * options.batches, options.n_features)
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        root = Path(folder)
        Trace.open(root / "empty.zarr", model=samples[0].model).close()
        ways = {
            "Trace, fsync (default)": WithTrace(root / "sync.zarr", True, samples[0].model),
            "Trace, fsync=False": WithTrace(root / "nosync.zarr", False, samples[0].model),
            f"stock zarr, {BATCH} rows at a time": WithStockZarr(root / "stock.zarr", root / "empty.zarr", True),
            "stock zarr, row by row": WithStockZarr(root / "single.zarr", root / "empty.zarr", False),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for start in range(0, len(samples), BATCH):
            for name, way in ways.items():
                begin = time.perf_counter()
                way.append(samples[start : start + BATCH])
                seconds[name].append(time.perf_counter() - begin)
        stock = zarr.open_group(root / "stock.zarr", mode="r")
        print(
            f"n_features = {options.n_features}, {len(samples)} samples, a flush every {BATCH}; median (and worst) of the batches"
        )
        print(f"{'':32}{'ms/flush':>10}{'worst':>9}{'ms/sample':>11}{'ratio':>8}{'bytes/sample':>14}")
        reference = np.median(seconds[f"stock zarr, {BATCH} rows at a time"])
        for name, way in ways.items():
            size = sum(file.stat().st_size for file in way.path.rglob("*") if file.is_file())
            for array, values in zarr.open_group(way.path, mode="r").arrays():
                np.testing.assert_array_equal(values[:], stock[array][:])
            median = np.median(seconds[name])
            print(
                f"{name:32}{1e3 * median:10.2f}{1e3 * max(seconds[name]):9.1f}{1e3 * median / BATCH:11.3f}"
                f"{median / reference:8.2f}{size / len(samples):14.0f}"
            )


if __name__ == "__main__":
    main()
