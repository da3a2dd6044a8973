"""Structures of Al, Mg and Si that the training data of ``almgsi-lda`` say little of, in steps from near to far.

    python outside.py ../data/outside-structures.xyz.xz
    python compute.py ../data/outside-structures.xyz.xz -o ../data/outside-lda.xyz.xz --work work-outside

Compressed and expanded crystals, other crystals, melts far too hot, mixtures, surfaces and pairs of atoms; the first of each series are
inside the training domain. ``benchmarks/extrapolation.py`` compares the model's error with its own sign of extrapolation on them.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk, diamond100, fcc111

SILICON_A, ALUMINIUM_A, MAGNESIUM_A = 5.39, 3.98, 3.14
"""Lattice constants (angstrom), near those of the LDA."""
AMPLITUDE_A = 0.08
"""Of random displacements, about those of 300 K."""


def structures() -> list[Atoms]:
    """All structures, with ``tag`` in ``info``."""
    silicon = bulk("Si", a=SILICON_A, cubic=True)
    aluminium = bulk("Al", a=ALUMINIUM_A, cubic=True).repeat((2, 1, 1))
    magnesium = bulk("Mg", a=MAGNESIUM_A, c=1.62 * MAGNESIUM_A).repeat((2, 2, 1))
    found: list[Atoms] = []
    for volume in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 1.2, 1.5, 2.0):
        found.append(_scaled(silicon, volume, f"dia-Si-volume-{volume:g}"))
    for volume in (1.0, 0.8, 0.6, 1.3, 1.8):
        found.append(_scaled(aluminium, volume, f"fcc-Al-volume-{volume:g}"))
    for volume in (0.7, 1.5):
        found.append(_scaled(magnesium, volume, f"hcp-Mg-volume-{volume:g}"))
    found += [
        _tagged(bulk("Si", "sc", a=2.53, cubic=True).repeat(2), "sc-Si"),
        _tagged(bulk("Si", "fcc", a=3.82, cubic=True).repeat((2, 1, 1)), "fcc-Si"),
        _tagged(bulk("AlSi", "zincblende", a=5.6, cubic=True), "zincblende-AlSi"),
        _tagged(bulk("MgSi", "rocksalt", a=5.3, cubic=True), "rocksalt-MgSi"),
    ]
    for amplitude in (0.3, 0.6, 0.9):
        found.append(_tagged(silicon, f"displaced-Si-{amplitude:g}", amplitude, closest=1.7))
    surface = diamond100("Si", (1, 1, 8), a=SILICON_A, vacuum=4.0)
    found.append(_tagged(surface, "surface-Si"))
    found.append(_tagged(fcc111("Al", (1, 1, 6), a=ALUMINIUM_A, vacuum=4.0), "surface-Al"))
    found.append(_tagged(Atoms("Si2", [[0, 0, 0], [2.25, 0, 0]], cell=[7.5, 6.5, 6.5]), "dimer-Si"))
    return found


def _scaled(atoms: Atoms, volume: float, tag: str) -> Atoms:
    """At a volume relative to its own."""
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
    return _tagged(scaled, tag)


def _tagged(atoms: Atoms, tag: str, amplitude: float = AMPLITUDE_A, closest: float = 0.0) -> Atoms:
    """With random displacements, drawn again until no two atoms are nearer than ``closest`` (angstrom)."""
    rng = np.random.default_rng(list(tag.encode()))
    result = Atoms(atoms.numbers, cell=atoms.cell, pbc=True)
    while True:
        result.positions = atoms.positions + rng.normal(0.0, amplitude, (len(atoms), 3))
        distances = result.get_all_distances(mic=True)
        if distances[~np.eye(len(atoms), dtype=bool)].min() >= closest:
            break
    result.info = {"tag": tag}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    found = structures()
    for index, atoms in enumerate(found):
        atoms.info["index"] = index
    with lzma.open(args.output, "wt") as file:
        ase.io.write(file, found, format="extxyz")
    print(f"{args.output}: {len(found)} structures")


if __name__ == "__main__":
    main()
