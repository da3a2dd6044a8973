"""Which structures train, validate and test.

    python split.py data/gaas-pbesol.xyz.xz data/lps-pbesol.xyz.xz data/hea-pbesol.xyz.xz

writes ``split`` into the info of every structure that has none yet. Snapshots of one series of dynamics are alike, and a test
structure whose neighbors have been trained on tests little. Therefore structures with the same atoms are put into blocks of about
four that are alike, and a block is never divided. Every kind gives its share to each part.

A data set without ``split`` is divided by the number of the structure: last digit 3 is the test, 7 the validation, so that a growing
data set never moves a structure from test to training.
"""

from __future__ import annotations

import argparse
import io
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

BLOCK = 4
SHARES = {"test": 0.16, "validation": 0.12}


def split_of(atoms: Atoms) -> str:
    """``train``, ``validation`` or ``test``."""
    if "split" in atoms.info:
        return str(atoms.info["split"])
    return {3: "test", 7: "validation"}.get(int(atoms.info["index"]) % 10, "train")


def kind_of(atoms: Atoms) -> str:
    """The tag without its temperature: ``liq-Si`` of ``liq-Si-4000K``."""
    return re.sub(r"-\d+K$", "", str(atoms.info["tag"]))


def split_by_series(structures: list[Atoms], seed: int = 1) -> list[str]:
    """The part of each structure, whole blocks at a time: for each kind, test and validation are filled up to their shares."""
    rng = np.random.default_rng(seed)
    parts = ["train"] * len(structures)
    kinds = [kind_of(a) for a in structures]
    total = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    given = {(kind, part): 0 for kind in total for part in SHARES}
    found = list(blocks(structures))
    for number in rng.permutation(len(found)):
        block = found[number]
        for part, share in SHARES.items():
            mine = [kinds[i] for i in block]
            wanting = [share * total[k] - given[k, part] - 0.5 * mine.count(k) for k in set(mine)]
            if min(wanting) >= 0:
                for i in block:
                    parts[i] = part
                    given[kinds[i], part] += 1
                break
    return parts


def blocks(structures: list[Atoms]) -> Iterator[list[int]]:
    """Structures with the same atoms in the same order, in clusters of about ``BLOCK`` by their distance (average linkage)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, atoms in enumerate(structures):
        groups.setdefault(tuple(atoms.numbers), []).append(i)
    for members in groups.values():
        if len(members) == 1:
            yield members
            continue
        distances = distance_matrix([structures[m] for m in members])
        count = -(-len(members) // BLOCK)
        labels = fcluster(linkage(squareform(distances), "average"), count, "maxclust")
        for label in sorted(set(labels)):
            yield [m for m, found in zip(members, labels, strict=True) if found == label]


def distance_matrix(structures: list[Atoms]) -> np.ndarray:
    """Root mean square displacements (angstrom) of the fractional positions, nearest images, without the common motion: ``(n, n)``."""
    positions = np.array([a.get_scaled_positions() for a in structures])
    cells = np.array([a.cell.array for a in structures])
    moved = positions[:, None] - positions[None]
    moved -= np.round(moved)
    moved -= moved.mean(axis=2, keepdims=True)
    moved -= np.round(moved)
    moved = moved @ (0.5 * (cells[:, None] + cells[None]))
    return np.sqrt((moved**2).sum(axis=-1).mean(axis=-1))


def write_split(path: Path) -> None:
    """Add ``split`` to each comment line of a compressed data set; all else stays as it is, to the letter."""
    text = lzma.decompress(path.read_bytes()).decode()
    structures = ase.io.read(io.StringIO(text), index=":", format="extxyz")
    if any("split" in a.info for a in structures):
        print(f"{path}: has its split already, left as it is")
        return
    parts = split_by_series(structures)
    lines = text.splitlines(keepends=True)
    at = 0
    for atoms, part in zip(structures, parts, strict=True):
        lines[at + 1] = re.sub(r" tag=(\S+) ", rf" tag=\1 split={part} ", lines[at + 1], count=1)
        at += len(atoms) + 2
    partial = path.with_name(path.name + ".part")
    with lzma.open(partial, "wt", preset=9) as handle:
        handle.writelines(lines)
    partial.rename(path)
    for kind in sorted({kind_of(a) for a in structures}):
        count = {p: sum(q == p and kind_of(a) == kind for a, q in zip(structures, parts, strict=True)) for p in ("train", *SHARES)}  # fmt: skip
        print(f"{path.name}: {kind}: " + ", ".join(f"{n} {p}" for p, n in count.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="data sets to write the split into (.xyz.xz)")
    for name in parser.parse_args().data:
        write_split(name)
