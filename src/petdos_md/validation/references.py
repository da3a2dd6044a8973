"""Reference structures with their DOS: what a model is validated and calibrated on.

>>> references = read_references("test.xyz.xz", model, where="index%10=3")         # doctest: +SKIP
>>> references[0].target, references[0].n_electrons                                # doctest: +SKIP

A data set is a file that ASE reads (compressed or not), with, in ``atoms.info`` of each structure, either ``dos`` (states/eV per
structure on the grid of the model, NaN where undefined) or ``eigenvalues`` (n_kpoints, n_bands) and ``kweights``. The number of
electrons is ``n_electrons``, else that of the model's table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..base.errors import PetdosError, SettingError, StructureError
from ..engines.structures.closeness import warn_if_close
from ..engines.structures.files import read_frames
from ..models.model import DOSModel
from ..physics.dft import Bands


@dataclass(frozen=True, eq=False)
class Reference:
    """One structure and what is known of its electrons.

    :param target: DOS ``(n_channels,)`` on the grid of the model, states/eV, NaN where undefined; its zero is its own
    :param n_electrons: of the structure
    :param subset: name of the part of the data set that it belongs to
    :param gap_eV: of the eigenvalues, NaN if they are not known
    """

    atoms: Atoms
    target: np.ndarray
    n_electrons: float
    subset: str = ""
    gap_eV: float = float("nan")


def read_references(
    path: str | os.PathLike[str],
    model: DOSModel,
    *,
    where: str | None = None,
    subset: str | None = None,
    index: str = ":",
) -> list[Reference]:
    """All structures of a data set, or some of them.

    :param where: keep those whose info fulfils ``key=value`` or ``key%m=value``, as in ``index%10=3``, or one of several values
        (``index%10=3,7``)
    :param index: structures of the file to look at, as a slice (``:100``)
    :param subset: key in info that names the subset; by default ``subset`` or ``tag``, whichever is there. Numbers with units at
        its end (temperatures, sizes) do not count: ``liq-Si-4000K`` is in the subset ``liq-Si``
    :raises SettingError: if the file cannot be read, nothing is left, or a structure has neither DOS nor eigenvalues with weights
    """
    return [_reference(atoms, number, model, subset, str(path)) for number, atoms in _chosen(Path(path), where, index)]


def note_on_electrons(references: Sequence[Reference], model: DOSModel) -> str:
    """A sentence where numbers of electrons are not those that the model has for the same atoms; empty if all are.

    Semicore states are a good reason, a wrong number of a file is none: it moves the Fermi level.
    """
    known = np.array([_known_electrons(model, r.atoms) for r in references])
    stated = np.array([r.n_electrons for r in references])
    other = np.flatnonzero(~np.isclose(stated, known) & np.isfinite(known))
    if not len(other):
        return ""
    first = other[0]
    return (
        f"note: {len(other)} of {len(references)} structures have another number of electrons than the model gives their atoms, the first "
        f"({references[first].atoms.symbols}) {stated[first]:g} in place of {known[first]:g}; right only if it counts other states of the cores"
    )


def _known_electrons(model: DOSModel, atoms: Atoms) -> float:
    try:
        return float(model.n_electrons(atoms))
    except StructureError:
        return float("nan")


def read_structures(path: str | os.PathLike[str], *, where: str | None = None, index: str = ":") -> list[Atoms]:
    """Structures of a file, whatever is known of them; arguments as of :func:`read_references`.

    :raises SettingError: if the file cannot be read or nothing is left
    """
    return [atoms for _, atoms in _chosen(Path(path), where, index)]


def _chosen(path: Path, where: str | None, index: str) -> list[tuple[int, Atoms]]:
    """Structures that fulfil a condition; of the others only what they have in its place is kept, for the message if there are none."""
    keep, key = _condition(where), re.split("[%=]", where.replace(" ", ""))[0] if where else ""
    found, values = [], []
    for number, atoms in _structures(path, index):
        values.append(atoms.info.get(key))
        if keep(atoms.info):
            found.append((number, atoms))
    if not found:
        what = f" with {where}{_instead(where, key, values)}" if where else ""
        raise SettingError(
            f"{path}: no structures{what}: the split is empty, expected at least one; check the condition"
        )
    return found


def _instead(where: str, key: str, values: list[Any]) -> str:
    """What the structures have in place of what a condition asks for."""
    if "%" in where:
        return ""
    known = sorted({str(value) for value in values if value is not None})
    if not known:
        return f", none of {len(values)} has {key} in its info"
    shown = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
    return f" among {len(values)}, whose {key} is {shown}"


def _structures(path: Path, index: str) -> Iterator[tuple[int, Atoms]]:
    if not path.exists():
        raise SettingError(
            f"{path}: no such data set; give structures with `dos` or `eigenvalues`, in any format that ASE reads"
        )
    yield from read_frames(path, index)


def _reference(atoms: Atoms, number: int, model: DOSModel, subset: str | None, where: str) -> Reference:
    info, grid = atoms.info, model.grid
    where = f"{where}: structure {number}"
    try:
        model.check(atoms)
        electrons = (
            model.n_electrons(atoms) if "n_electrons" not in info else float(_numbers(info, "n_electrons", where, ()))
        )
    except StructureError as error:
        raise StructureError(f"{where}: {error}") from None
    if not 0 < electrons < np.inf:
        raise SettingError(f"{where} has n_electrons = {electrons:g}, expected a positive number")
    warn_if_close(atoms, where)
    gap = float("nan")
    if "dos" in info:
        target = _numbers(info, "dos", where)
        if target.shape != (grid.n,):
            raise SettingError(
                f"{where} has a DOS of shape {target.shape}, the model has {grid.n} energies; write eigenvalues and kweights in its place"
            )
        if not np.isfinite(target).any():
            raise SettingError(f"{where} has a DOS that is undefined everywhere")
    elif "eigenvalues" in info:
        if "kweights" not in info:
            raise SettingError(f"{where} has eigenvalues but no kweights, expected a weight for each k-point")
        levels, weights = _numbers(info, "eigenvalues", where), np.atleast_1d(_numbers(info, "kweights", where))
        try:
            bands = Bands.from_arrays(levels, weights, n_electrons=electrons)
            bands.check(electrons)
            target, gap = bands.dos(grid), bands.gap()
        except PetdosError as error:
            raise type(error)(f"{where}: {error}") from None
    else:
        raise SettingError(
            f"{where} has neither dos nor eigenvalues in its info; write one of them to atoms.info, or take other structures with --where"
        )
    return Reference(atoms, target, electrons, _subset(info, subset), gap)


def _numbers(info: dict[str, Any], key: str, where: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A value of info as numbers, float64."""
    try:
        values = np.asarray(info[key], dtype=np.float64)
    except (TypeError, ValueError):
        shown = " ".join(str(info[key]).split())[:40]
        raise SettingError(f"{where} has {key} = {shown}, expected numbers; write them to atoms.info") from None
    if shape is not None and values.shape != shape:
        raise SettingError(f"{where} has {key} of shape {values.shape}, expected {shape or 'one number'}")
    return values


def _subset(info: dict[str, Any], key: str | None) -> str:
    if key is None:
        key = next((k for k in ("subset", "tag") if k in info), None)
    if key is None:
        return ""
    return re.sub(r"([-_]?\d+(K|GPa|at)?)+$", "", str(info.get(key, "")))


def _condition(where: str | None) -> Any:
    if where is None:
        return lambda info: True
    match = re.fullmatch(r"(\w+)(?:%(\d+))?=(.+)", where.replace(" ", ""))
    if not match or match[2] == "0":
        raise SettingError(f"got the condition {where!r}, expected key=value or key%number=value, as in index%10=3")
    key, modulus, value = match.groups()
    values = value.split(",")
    if modulus is None:
        return lambda info: str(info.get(key)) in values

    def holds(info: dict[str, Any]) -> bool:
        if key not in info:
            return False
        try:
            return str(int(info[key]) % int(modulus)) in values
        except (TypeError, ValueError):
            raise SettingError(
                f"got the condition {where!r}, but a structure has {key} = {info[key]}; give key=value"
            ) from None

    return holds
