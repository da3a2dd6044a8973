"""Targets and split of the training: from data sets with eigenvalues to the three files that `mtt train` reads."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from petdos_md.base.errors import PetdosError
from petdos_md.base.grid import EnergyGrid
from petdos_md.physics.dft import defined_below, dos_target

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "dft")]
from compute import read_xz  # noqa: E402
from script import whole  # noqa: E402
from split import split_of  # noqa: E402

TARGET = "mtt::dos"
GRID_MARGIN_EV = 5.0
"""How far the grid should reach beyond the bands: predictions move against targets."""

NARROW_EV = 3.0
"""Valence and conduction bands of no material are so close together."""

INFO = ("index", "tag", "n_electrons", "eigenvalues", "kweights")
"""What the info of each structure must hold."""


def prepare(args: argparse.Namespace) -> None:
    """Write ``train.xyz``, ``validation.xyz``, ``test.xyz`` with the DOS targets in ``info['dos']``."""
    found = read_data(args.data)
    if not found:
        sys.exit(f"no structures in {', '.join(map(str, args.data))}; give files that hold structures with eigenvalues")
    check_info((a for atoms in found for a in atoms), INFO, ", ".join(map(str, args.data)))
    add_targets([a for atoms in found for a in atoms], args.grid)
    bands = [np.asarray(a.info["eigenvalues"]) for atoms in found for a in atoms]
    lowest, highest = min(float(b.min()) for b in bands), max(defined_below(b) for b in bands)
    energies = has_energy(args.options)
    check_electrons([a for atoms in found for a in atoms], args.electrons)
    needed = {"energy", "forces", "stress"}
    bare = sum(a.calc is None or not needed <= a.calc.results.keys() for atoms in found for a in atoms)
    if energies and bare:
        sys.exit(
            f"{bare} structures lack energy, forces or stress; --options options-dos trains a model of the DOS alone"
        )
    parts: dict[str, list[Atoms]] = {"train": [], "validation": [], "test": []}
    for structures in found:
        chosen = [a for a in structures if wanted(str(a.info["tag"]), args.tags, args.without_tags)]
        for name, part in parts.items():
            mine = [a for a in chosen if split_of(a) == name]
            if name == "train":
                # Structures come in random order: the first ones are a fair part of all.
                mine = mine[: max(1, round(args.fraction * len(mine)))]
            part += [with_target(a, args.grid, highest, energies) for a in mine]
    if not all(parts.values()):
        sys.exit(
            f"a part of the split is empty ({ {k: len(v) for k, v in parts.items()} }); give other --tags or more data"
        )
    if args.grid.start > lowest - GRID_MARGIN_EV or args.grid.stop < highest + GRID_MARGIN_EV:
        print(
            f"note: the grid, {args.grid.start:g} to {args.grid.stop:g} eV, should reach {GRID_MARGIN_EV:g} eV beyond {lowest:.2f} and {highest:.2f} eV"
        )
    if highest - lowest < NARROW_EV:
        print(
            f"note: from the lowest state to the last band there are only {highest - lowest:.2f} eV; are the eigenvalues in eV?"
        )
    (args.output / "prepare.json").write_text(json.dumps(choice(args)))
    for name, part in reversed(parts.items()):  # the training set is the last: where it is, all are
        with whole(args.output / f"{name}.xyz") as partial:
            ase.io.write(partial, part, format="extxyz")
    sizes = ", ".join(f"{len(s)} {name}" for name, s in parts.items())
    print(f"{sizes}; eigenvalues from {lowest:.2f} eV, targets defined up to {highest:.2f} eV")


def choice(args: argparse.Namespace) -> dict[str, Any]:
    """Options that decide what is in the three files."""
    return {
        "data": [str(path.resolve()) for path in args.data],
        "grid": [args.grid.start, args.grid.stop],
        "tags": args.tags,
        "without_tags": args.without_tags,
        "fraction": args.fraction,
    }


def check_choice(args: argparse.Namespace) -> None:
    """End with one line if the files in ``--output`` were made by other options."""
    file = args.output / "prepare.json"
    made = json.loads(file.read_text()) if file.exists() else {}
    other = [name for name, value in choice(args).items() if made.get(name, value) != value]
    if other:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in other)
        sys.exit(f"{args.output}: was prepared with other {options}; give a new --output, or those of before")


def read_data(paths: Iterable[Path]) -> list[list[Atoms]]:
    """Structures of each data set, by number. A folder of single structures adds to the data set that has its numbers and tags."""
    sets: list[dict[tuple[int, str], Atoms]] = []
    for path in paths:
        files = sorted(path.glob("*.xyz")) if path.is_dir() else [path]
        atoms = [a for file in files for a in (read_xz(file) if file.is_file() else [])]
        check_info(atoms, INFO[:2], str(path))
        mine = {(number_of(a, path), str(a.info["tag"])): a for a in atoms}
        if len(mine) < len(atoms):
            sys.exit(
                f"{path}: {len(atoms) - len(mine)} structures have index and tag of another one; each needs its own index"
            )
        if mine:
            sets.append({key: mine.pop(key) for key in list(mine) if not any(key in other for other in sets)})
            for other in sets[:-1]:
                other.update({key: mine[key] for key in other.keys() & mine.keys()})
    return [[found[key] for key in sorted(found)] for found in sets if found]


def number_of(atoms: Atoms, path: Path) -> int:
    """The index of a structure."""
    try:
        return int(atoms.info["index"])
    except ValueError:
        sys.exit(f"{path}: got index {atoms.info['index']}, expected a whole number of its own for each structure")


def add_targets(structures: Iterable[Atoms], grid: EnergyGrid) -> None:
    """Put the DOS into ``info['dos']``; end with one line if eigenvalues and weights make none, or the bands cannot hold the electrons."""
    for atoms in tqdm(structures, desc="targets", unit="structure", disable=None):
        which = f"structure with index {atoms.info['index']} and tag {atoms.info['tag']}"
        try:
            atoms.info["dos"] = dos_target(atoms.info["eigenvalues"], atoms.info["kweights"], grid)
        except PetdosError as error:
            sys.exit(f"{which}: {error}")
        n_bands, electrons = np.shape(atoms.info["eigenvalues"])[-1], float(atoms.info["n_electrons"])
        if 2 * n_bands <= electrons:
            sys.exit(f"{which}: {electrons:g} electrons fill all {n_bands} bands; compute more of them")


def check_info(structures: Iterable[Atoms], names: Iterable[str], where: str) -> None:
    """End with one line if the info of a structure lacks one of the names."""
    for number, atoms in enumerate(structures):
        for name in names:
            if name not in atoms.info:
                sys.exit(
                    f"{where}: no {name!r} in the info of structure {number}; expected {', '.join(INFO)} in that of each"
                )


def check_electrons(structures: Iterable[Atoms], electrons: dict[str, float]) -> None:
    """End with one line if the valence electrons of the elements do not add up to those of a structure."""
    for number, atoms in enumerate(structures):
        unknown = sorted(set(atoms.symbols) - electrons.keys())
        if unknown:
            sys.exit(f"--electrons says nothing of {', '.join(unknown)} (structure {number})")
        counted, stated = sum(electrons[s] for s in atoms.symbols), float(atoms.info["n_electrons"])
        if abs(counted - stated) > 1e-6:
            sys.exit(
                f"structure {number} ({atoms.symbols}) has {stated:g} valence electrons, by --electrons {counted:g}"
            )


def wanted(tag: str, tags: list[str] | None, without: list[str] | None) -> bool:
    """Whether a tag begins with one of ``tags`` (all do if there are none) and with none of ``without``."""
    return (not tags or tag.startswith(tuple(tags))) and not (without and tag.startswith(tuple(without)))


def has_energy(options: Path) -> bool:
    """Whether the networks of these options have an energy head beside that of the DOS."""
    return "energy" in yaml.safe_load((options / "shift.yaml").read_text())["training_set"]["targets"]


def with_target(atoms: Atoms, grid: EnergyGrid, highest: float, energies: bool = True) -> Atoms:
    """What the training reads: the DOS and, for a network with both heads, energy, forces and stress.

    ``dos_start`` is zero in the channels above the highest limit of all, which no target ever defines: left to themselves in the
    first trainings, they keep their random weights, and the shift-agnostic loss then moves the whole spectrum to be rid of them.
    """
    result = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    result.info = {key: atoms.info[key] for key in ("index", "tag", "n_electrons", "dos")}
    result.info["dos_start"] = np.where(grid.energies > highest, 0.0, result.info["dos"])
    if energies:
        result.calc = SinglePointCalculator(
            result,
            energy=atoms.get_potential_energy(),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(voigt=False),
        )
    return result
