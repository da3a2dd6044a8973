"""Which structures train, validate and test.

    python split.py data/gaas-pbesol.xyz.xz data/lps-pbesol.xyz.xz data/hea-pbesol.xyz.xz

writes ``split`` into the info of every structure that has none yet. Snapshots of one series of dynamics are alike, and a test
structure whose neighbors have been trained on tests little. Therefore structures with the same atoms are put into blocks of about
four that are alike, and a block is never divided. Every kind gives its share to each part; where that leaves a part with too little, as with many
kinds of a few structures each, it gets more blocks, of whatever kind.

A data set without ``split`` is divided by the number of the structure: last digit 3 is the test, 7 the validation, so that a growing
data set never moves a structure from test to training.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from tqdm import tqdm

from petdos_md.base.errors import SettingError

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "dft")]
from compute import check_numbered, frames, opened, read_text  # noqa: E402
from script import Parser, run, whole  # noqa: E402

BLOCK = 4
SHARES = {"test": 0.16, "validation": 0.12}
LEAST = 2 / 3
"""A part with less of its share, or with one structure, gets more."""
PARTS = ("train", "validation", "test")


def split_of(atoms: Atoms) -> str:
    """``train``, ``validation`` or ``test``.

    :raises SettingError: if the structure says something else, or has neither a split nor a number
    """
    index = atoms.info.get("index", "")
    if "split" in atoms.info:
        part = str(atoms.info["split"])
        if part not in PARTS:
            raise SettingError(
                f"structure with index {index} has split={part}, expected train, validation or test; mend its comment line"
            )
        return part
    try:
        return {3: "test", 7: "validation"}.get(int(index) % 10, "train")
    except (TypeError, ValueError):
        got = f"index {' '.join(str(index).split())[:40]}" if "index" in atoms.info else "no index"
        raise SettingError(
            f"a structure has no split and {got}, expected a whole number of its own; write index or split into its info"
        ) from None


def kind_of(atoms: Atoms) -> str:
    """The tag without its temperature: ``liq-Si`` of ``liq-Si-4000K``."""
    return re.sub(r"-\d+K$", "", str(atoms.info["tag"]))


def split_by_series(structures: list[Atoms], seed: int = 1) -> list[str]:
    """The part of each structure, whole blocks at a time: for each kind, test and validation are filled up to their shares.

    :raises SettingError: if there are too few blocks for three parts
    """
    rng = np.random.default_rng(seed)
    kinds = [kind_of(a) for a in structures]
    total = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    given = {(kind, part): 0 for kind in total for part in SHARES}
    found = list(blocks(structures))
    found = [found[number] for number in rng.permutation(len(found))]
    of_blocks = ["train"] * len(found)
    for number, block in enumerate(found):
        for part, share in SHARES.items():
            mine = [kinds[i] for i in block]
            wanting = [share * total[k] - given[k, part] - 0.5 * mine.count(k) for k in set(mine)]
            if min(wanting) >= 0:
                of_blocks[number] = part
                for i in block:
                    given[kinds[i], part] += 1
                break
    fill_up(of_blocks, found, kinds)
    parts = {i: part for part, block in zip(of_blocks, found, strict=True) for i in block}
    return [parts[i] for i in range(len(structures))]


def fill_up(of_blocks: list[str], found: list[list[int]], kinds: list[str]) -> None:
    """Give a part that has too little more blocks of the training set, those first that bring it closest to its share.

    A block that would make it twice its share, or is all that there is of a kind in the training set, comes last.

    :param of_blocks: the part of each block, changed in place
    """
    n = len(kinds)

    def size(part: str) -> int:
        return sum(len(block) for block, p in zip(found, of_blocks, strict=True) if p == part)

    def cost(number: int, wanted: float) -> tuple[bool, bool, float]:
        rest = {kinds[i] for k, block in enumerate(found) if of_blocks[k] == "train" and k != number for i in block}
        off = abs(wanted - len(found[number]))
        return off > wanted, not rest >= {kinds[i] for i in found[number]}, off

    for part, share in SHARES.items():
        while size(part) < max(2, LEAST * share * n):
            wanted = share * n - size(part)
            left = [number for number, p in enumerate(of_blocks) if p == "train"]
            if not left:
                break
            of_blocks[min(left, key=lambda number: cost(number, wanted))] = part
    if min(size(part) for part in SHARES) < 2 or size("train") < max(size(part) for part in SHARES):
        sizes = sorted(map(len, found), reverse=True)
        shown = ", ".join(map(str, sizes[:8])) + (", ..." if len(sizes) > 8 else "")
        raise SettingError(
            f"{n} structures make {len(found)} blocks of alike ones (sizes {shown}), too few for training, validation and test; "
            "add structures of other series, or write split=train, split=validation or split=test into their comment lines yourself"
        )


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
    """Add ``split`` to each comment line of a data set, compressed or not; all else stays as it is, to the letter.

    :raises SettingError: if a structure has no tag or cell, some have a split already, or there are too few
    """
    text = read_text(path)
    starts, structures = starts_and_structures(text, path)
    having = sum("split" in a.info for a in structures)
    if having == len(structures):
        print(f"{path}: has its split already, left as it is")
        parts = [split_of(a) for a in structures]
    elif having:
        raise SettingError(
            f"{path}: {having} of {len(structures)} structures have a split; expected all or none, take it out of their comment lines"
        )
    else:
        try:
            parts = split_by_series(structures)
        except SettingError as error:
            raise SettingError(f"{path}: {error}") from None
        lines = io.StringIO(text).readlines()
        for start, part in zip(starts, parts, strict=True):
            lines[start + 1] = with_split(lines[start + 1], part)
        written = starts_and_structures("".join(lines), path)[1]
        if [a.info.get("split") for a in written] != parts:
            raise SettingError(
                f"{path}: the split cannot be put behind the tags; expected tag=... once in each comment line"
            )
        with whole(path) as partial, opened(partial, "wt") as handle:
            handle.writelines(lines)
    print_counts(path.name, structures, parts)


def starts_and_structures(text: str, path: Path) -> tuple[list[int], list[Atoms]]:
    """Structures with tag, number and cell, and the first line of each."""
    found = list(tqdm(frames(text, path), desc=path.name, unit="structure", disable=None, leave=False))
    structures = [atoms for _, atoms in found]
    if not structures:
        raise SettingError(f"{path}: holds no structures, expected extended XYZ with index and tag in the info of each")
    check_numbered(structures, path)
    for number, atoms in enumerate(structures):
        if "tag" not in atoms.info:
            raise SettingError(
                f"{path}: no 'tag' in the info of structure {number}; expected tag=KIND-300K, or tag=KIND, in that of each"
            )
        if not atoms.cell.volume:
            raise SettingError(
                f"{path}: structure {number} has no cell; expected a periodic one, Lattice=... in its comment line"
            )
    return [start for start, _ in found], structures


def with_split(comment: str, part: str) -> str:
    """A comment line with the split behind the tag."""
    return re.sub(r"""(?<!\S)(tag=(?:"[^"]*"|'[^']*'|\S+))""", rf"\1 split={part}", comment, count=1)


def print_counts(name: str, structures: list[Atoms], parts: list[str]) -> None:
    """Structures of each kind, and of all, in each part."""
    kinds = [kind_of(a) for a in structures]
    for kind in (*sorted(set(kinds)), None):
        count = {p: sum(q == p and kind in (k, None) for k, q in zip(kinds, parts, strict=True)) for p in PARTS}
        print(f"{name}: {'all' if kind is None else kind}: " + ", ".join(f"{n} {p}" for p, n in count.items()))


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="data sets to write the split into (.xyz.xz or .xyz)")
    for path in parser.parse_args().data:
        write_split(path)


if __name__ == "__main__":
    run(main)
