"""How long denoised averages take for a model of PET-MAD-DOS's size, and thermodynamics of its members.

    python benchmarks/denoise_speed.py [--frames 1000] [--members 128] [--folder DIR]

Readout with random weights and a trace as in ``analysis_speed.py``. Aims on two cores: denoised averages of 1000 frames x 128 members x
4806 energies in 180 s and 2 GB beyond the (mapped) readout, thermodynamics of 128 members at 16 temperatures in 2 s.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from analysis_speed import N_ATOMS, measured, write_readout, write_trace

from petdos_md.analysis.analyze import analyze
from petdos_md.physics.curves import thermodynamics
from petdos_md.physics.networks import DOSNetwork, Network


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--members", type=int, default=128)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=4806)
    parser.add_argument(
        "--network", action="store_true", help="also with the Fermi level of each member from a network"
    )
    parser.add_argument("--folder", type=Path, help="for the files; a temporary folder by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        readout = write_readout(Path(folder) / "readout.safetensors", args)
        trace = write_trace(Path(folder) / "run.zarr", readout, np.array([900.0]), args.frames)
        features = np.asarray(trace.features[:1], dtype=float)[0]
        rows = [
            (
                "denoised, Fermi level by integration",
                180.0,
                lambda: analyze(trace, readout, denoise="integration", reference="raw"),
            )
        ]
        if args.network:
            network = network_at(readout, features)
            rows.append(
                (
                    "denoised, Fermi level by network",
                    180.0,
                    lambda: analyze(trace, readout, denoise=network, reference="raw"),
                )
            )
        members, t = readout.members(features), np.geomspace(100, 5000, 16)
        rows.append(
            (
                f"thermodynamics of {len(members)} members, 16 temperatures",
                2.0,
                lambda: thermodynamics(readout.grid.energies, members, 256.0, t, n_atoms=N_ATOMS),
            )
        )
        print(
            f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {args.frames} frames x {args.members} members"
        )
        print(f"{'analysis':<55} {'seconds':>8} {'CPU s':>7} {'aim':>5} {'peak memory':>12}")
        for name, aim, call in rows:
            seconds, cpu, peak = measured(call)
            print(f"{name:<55} {seconds:8.1f} {cpu:7.1f} {aim:5.0f} {peak / 1e9:9.2f} GB", flush=True)


def network_at(readout, features: np.ndarray) -> Network:
    """Random weights whose answer is a level inside the band."""
    torch.manual_seed(0)
    module = DOSNetwork(readout.grid.n)
    with torch.no_grad():
        module.fc2.bias.fill_(0.5 * (readout.grid.stop - readout.grid.start) + 40.0)
    return Network(module, readout.grid, "fermi_level", "random")


if __name__ == "__main__":
    main()
