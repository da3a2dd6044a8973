"""Targets and split of the training: from data sets with eigenvalues to the three files that `mtt train` reads."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from tqdm import tqdm

from petdos_md.base.errors import PetdosError, SettingError
from petdos_md.base.grid import EnergyGrid
from petdos_md.physics.dft import Bands

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "dft")]
from compute import read_xz  # noqa: E402
from script import whole  # noqa: E402
from split import split_of  # noqa: E402

TARGET = "mtt::dos"
GRID_MARGIN_EV = 5.0
"""How far the grid should reach beyond the bands: predictions move against targets."""

INFO = ("index", "tag", "n_electrons", "eigenvalues", "kweights")
"""What the info of each structure must hold."""


def prepare(args: argparse.Namespace) -> None:
    """Write ``train.xyz``, ``validation.xyz``, ``test.xyz`` with the DOS targets in ``info['dos']``."""
    found = read_data(args.data)
    if not found:
        sys.exit(f"no structures in {', '.join(map(str, args.data))}; give files that hold structures with eigenvalues")
    everything = [a for atoms in found for a in atoms]
    where = ", ".join(map(str, args.data))
    check_info(everything, INFO, where)
    check_electrons(everything, args.electrons)
    if args.start:
        check_start(args.start, args.grid, {s for a in everything for s in a.symbols})
    lowest, highest = add_targets(everything, args.grid)
    energies = has_energy(args.options)
    needed = {"energy", "forces", "stress"}
    bare = sum(a.calc is None or not needed <= a.calc.results.keys() for a in everything)
    if energies and bare:
        sys.exit(
            f"{bare} of {len(everything)} structures lack energy, forces or stress, by these names; --options options-dos trains a model of the DOS alone"
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
            f"{where}: a part of the split is empty ({', '.join(f'{len(v)} {k}' for k, v in parts.items())}); "
            + (
                "give other --tags"
                if args.tags or args.without_tags
                else "write another split into the info, or give more data"
            )
        )
    if args.grid.start > lowest - GRID_MARGIN_EV or args.grid.stop < highest + GRID_MARGIN_EV:
        print(
            f"note: the grid of the predictions, {args.grid.start:g} to {args.grid.stop:g} eV, should reach {GRID_MARGIN_EV:g} eV beyond {lowest:.2f} and {highest:.2f} eV"
        )
    (args.output / "prepare.json").write_text(json.dumps(choice(args)))
    for name, part in reversed(parts.items()):  # the training set is the last: where it is, all are
        with whole(args.output / f"{name}.xyz") as partial:
            ase.io.write(partial, part, format="extxyz")
    sizes = ", ".join(f"{len(s)} {name}" for name, s in parts.items())
    print(f"{sizes}; eigenvalues from {lowest:.2f} eV, targets defined up to {highest:.2f} eV")


def choice(args: argparse.Namespace) -> dict[str, Any]:
    """Options that decide what is in ``--output``; those of ``TRAINING`` not in the three files."""
    return {
        "data": [str(path.resolve()) for path in args.data],
        "contents of data": [contents(path) for path in args.data],
        "grid": [args.grid.start, args.grid.stop],
        "tags": args.tags,
        "without_tags": args.without_tags,
        "fraction": args.fraction,
        "electrons": args.electrons,
        "options": str(args.options.resolve()),
        "epochs": args.epochs,
        "start": str(args.start) if args.start else None,
        "adapt": args.adapt,
        "seen": [str(path.resolve()) for path in args.seen],
        "description": args.description,
        "name": args.name,
    }


TRAINING = ("epochs", "start", "adapt", "seen", "description", "name")
"""Options that a single stage may have otherwise."""


def contents(path: Path) -> str:
    """A hash of a data set."""
    files = sorted(path.glob("*.xyz")) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def check_start(path: Path, grid: EnergyGrid, symbols: set[str]) -> None:
    """End with one line if a checkpoint cannot be trained on with this grid and these elements."""
    from metatrain.utils.io import load_model

    try:
        info = load_model(path).dataset_info
        channels = sum(len(block.properties) for block in info.targets[TARGET].layout.blocks())
    except Exception:  # torch and metatrain raise many kinds
        sys.exit(f"{path}: is no checkpoint of a network for the DOS, as `mtt train` writes it (.ckpt)")
    if channels != grid.n:
        sys.exit(
            f"{path}: has {channels} energies, but the grid from {grid.start:g} to {grid.stop:g} eV has {grid.n}; give --grid as it was "
            "trained, -20 26 for trio-pbesol and none for almgsi-lda"
        )
    unknown = sorted(symbols - {chemical_symbols[number] for number in info.atomic_types})
    if unknown:
        sys.exit(f"{path}: does not know {', '.join(unknown)}; start from one that does, or from random weights")


def check_choice(args: argparse.Namespace) -> None:
    """End with one line if what is in ``--output`` was made by other options."""
    file = args.output / "prepare.json"
    made = json.loads(file.read_text()) if file.exists() else {}
    for name, value in choice(args).items():
        if made.get(name, value) != value and not (args.stage != "all" and name in TRAINING):
            if name == "contents of data":
                sys.exit(
                    f"{args.output}: was begun with other contents of {', '.join(map(str, args.data))}; give a new --output"
                )
            was, now = ("not given" if v is None or v == [] else v for v in (made[name], value))
            sys.exit(
                f"{args.output}: was begun with other options (--{name.replace('_', '-')}: {was}, now {now}); give a new --output, or "
                "those of before; --quick sets --fraction and --epochs"
            )


def read_data(paths: Iterable[Path]) -> list[list[Atoms]]:
    """Structures of each data set, by number. A folder of single structures adds to the data set that has its numbers and tags."""
    sets: list[dict[tuple[int, str], Atoms]] = []
    for path in paths:
        files = sorted(path.glob("*.xyz")) if path.is_dir() else [path]
        atoms = [a for file in files for a in (read_xz(file) if file.is_file() else [])]
        check_info(atoms, INFO[:2], str(path))
        numbers = [number_of(a, path) for a in atoms]
        for number, times in Counter(numbers).most_common(1):
            if times > 1:
                sys.exit(f"{path}: {times} structures have the index {number}; each needs its own")
        mine = {(number, str(a.info["tag"])): a for number, a in zip(numbers, atoms, strict=True)}
        if mine:
            sets.append({key: mine.pop(key) for key in list(mine) if not any(key in other for other in sets)})
            again = sum(len(other.keys() & mine.keys()) for other in sets[:-1])
            if again:
                print(f"note: {again} structures of {path} take the place of those with the same index and tag before")
            for other in sets[:-1]:
                other.update({key: mine[key] for key in other.keys() & mine.keys()})
    return [[found[key] for key in sorted(found)] for found in sets if found]


def number_of(atoms: Atoms, path: Path) -> int:
    """The index of a structure."""
    try:
        return int(atoms.info["index"])
    except ValueError:
        sys.exit(f"{path}: got index {atoms.info['index']}, expected a whole number of its own for each structure")


def add_targets(structures: list[Atoms], grid: EnergyGrid) -> tuple[float, float]:
    """Put the DOS into ``info['dos']``; end with one line if eigenvalues, weights, cell or grid make none.

    :returns: lowest eigenvalue and highest energy (eV) up to which a target is defined
    """
    limits = []
    for atoms in tqdm(structures, desc="targets", unit="structure", disable=None):
        try:
            limits.append(add_target(atoms, grid))
        except PetdosError as error:
            sys.exit(f"{name_of(atoms)}: {error}")
        except (TypeError, ValueError):
            sys.exit(
                f"{name_of(atoms)}: got eigenvalues or kweights that are no numbers, or no whole table; write arrays"
            )
    lowest, highest = np.array(limits).T
    return float(lowest.min()), float(highest.max())


def add_target(atoms: Atoms, grid: EnergyGrid) -> tuple[float, float]:
    """Put the DOS of one structure into its info.

    :returns: lowest eigenvalue and energy up to which the target is defined, eV
    :raises SettingError: if there is none, or none that holds the electrons
    """
    electrons = float(atoms.info["n_electrons"])
    bands = Bands.from_arrays(atoms.info["eigenvalues"], atoms.info["kweights"], n_electrons=electrons)
    bands.check(electrons)
    atoms.info["dos"] = bands.dos(grid)
    below = bands.n_states_below(grid.stop)
    if below <= electrons:
        raise SettingError(
            f"the grid ends at {grid.stop:g} eV, where there are only {below:.4g} states for {electrons:g} electrons; "
            f"let it end {GRID_MARGIN_EV:g} eV above the bands, at {bands.defined_below() + GRID_MARGIN_EV:.0f} eV"
        )
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all() and atoms.cell.volume > 0):
        raise SettingError(
            f"its cell has the volume {atoms.cell.volume:g} A^3, or a position is not finite; expected three vectors, for a "
            "molecule those of a large box"
        )
    return float(bands.eigenvalues.min()), bands.defined_below()


def name_of(atoms: Atoms) -> str:
    """How messages name a structure."""
    return f"structure with index {atoms.info['index']} and tag {atoms.info['tag']}"


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
    for atoms in structures:
        unknown = sorted(set(atoms.symbols) - electrons.keys())
        if unknown:
            sys.exit(f"--electrons says nothing of {', '.join(unknown)} ({name_of(atoms)})")
        try:
            stated = float(atoms.info["n_electrons"])
        except (TypeError, ValueError):
            sys.exit(f"{name_of(atoms)}: got n_electrons = {atoms.info['n_electrons']}, expected a number")
        counted = sum(electrons[s] for s in atoms.symbols)
        if abs(counted - stated) > 1e-6:
            sys.exit(
                f"{name_of(atoms)}: {atoms.symbols} has {counted:g} valence electrons by --electrons, but n_electrons = {stated:g}; "
                "correct one of them"
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
