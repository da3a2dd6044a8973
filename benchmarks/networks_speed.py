"""How many DOS a second the networks read, against upet's module on the same weights.

    python benchmarks/networks_speed.py [--number 512] [--channels 4806]

Aim: 2000 DOS a second on two cores. The largest difference of the two is printed with the times.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from cost_per_frame import product_speed

from petdos_md.base.grid import EnergyGrid
from petdos_md.base.quiet import quiet
from petdos_md.physics.dos_network import CHANNELS, HIDDEN, KERNELS, POOL, SHORTEST, DOSNetwork
from petdos_md.physics.networks import Network


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=512)
    parser.add_argument("--channels", type=int, default=4806)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    grid = EnergyGrid(0.0, 0.05, args.channels)
    network = Network(DOSNetwork(grid.n), grid, "fermi_level")
    dos = 8 * np.random.default_rng(0).random((args.number, grid.n))
    contenders: list[tuple[str, Callable[[], np.ndarray]]] = [("this package", lambda: network(dos, 8))]
    if grid.n == 4806:
        with quiet():
            from upet.ase.dos._models import CNNModel

        peer = CNNModel().eval()
        peer.load_state_dict(network.module.state_dict())

        def of_peer() -> np.ndarray:
            with torch.inference_mode():
                parts = torch.as_tensor(dos / 8, dtype=torch.float32)[:, None].split(64)
                return torch.cat([peer(part)[:, 0] for part in parts]).double().numpy()

        contenders.append(("upet", of_peer))
    flop, speed = layers_mflop(args.channels), product_speed()
    print(
        f"the layers as published: {flop:.0f} MFLOP a DOS; products of matrices: {speed:.0f} GFLOP/s, at which {1e3 * speed / flop:.0f} DOS/s"
    )
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, {grid.n} energies, {args.number} DOS")
    results = []
    for name, call in contenders:
        call()
        wall, cpu = [], []
        for _ in range(args.repeat):
            start, processor = time.perf_counter(), time.process_time()
            results.append(call())
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - processor)
        print(
            f"{name:<14} {args.number / min(wall):8.0f} DOS/s   {args.number / min(cpu):8.0f} DOS per processor second"
        )
    if len(contenders) > 1:
        print(f"largest difference {np.abs(results[0] - results[-1]).max():.1e} eV")


def layers_mflop(n_channels: int) -> float:
    """Floating-point operations of one DOS, layer by layer, in millions; additions of biases, pooling and SiLU are not counted."""
    total, n, inputs = 0, max(n_channels, SHORTEST), 1
    for kernel in KERNELS:
        n = n + 2 - kernel + 1
        total += 2 * n * kernel * inputs * CHANNELS
        n, inputs = n // POOL, CHANNELS
    return (total + 2 * n * CHANNELS * HIDDEN + 2 * HIDDEN) / 1e6


if __name__ == "__main__":
    main()
