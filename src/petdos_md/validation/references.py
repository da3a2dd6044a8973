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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..base.errors import SettingError
from ..engines.structures.closeness import warn_if_close
from ..engines.structures.files import read_frames
from ..models.model import DOSModel
from ..physics.dft import Bands

_FORMATS = {".xyz": "extxyz", ".extxyz": "extxyz"}


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
    path, keep = Path(path), _condition(where)
    found = [
        _reference(atoms, number, model, subset, str(path))
        for number, atoms in _structures(path, index)
        if keep(atoms.info)
    ]
    if not found:
        raise SettingError(
            f"{path}: no structures{f' with {where}' if where else ''}: the split is empty, expected at least one; check the condition"
        )
    return found


def read_structures(path: str | os.PathLike[str], *, where: str | None = None, index: str = ":") -> list[Atoms]:
    """Structures of a file, whatever is known of them; arguments as of :func:`read_references`.

    :raises SettingError: if the file cannot be read or nothing is left
    """
    keep = _condition(where)
    found = [atoms for _, atoms in _structures(Path(path), index) if keep(atoms.info)]
    if not found:
        raise SettingError(f"{path}: no structures{f' with {where}' if where else ''}, expected at least one")
    return found


def _structures(path: Path, index: str) -> Iterator[tuple[int, Atoms]]:
    if not path.is_file():
        raise SettingError(
            f"{path}: no such data set; give structures with `dos` or `eigenvalues`, in any format that ASE reads"
        )
    suffixes = [s for s in path.suffixes if s not in (".xz", ".gz", ".bz2")]
    yield from read_frames(path, index, _FORMATS.get(suffixes[-1]) if suffixes else None)


def _reference(atoms: Atoms, number: int, model: DOSModel, subset: str | None, where: str) -> Reference:
    info, grid = atoms.info, model.grid
    model.check(atoms)
    electrons = float(info["n_electrons"]) if "n_electrons" in info else model.n_electrons(atoms)
    gap = float("nan")
    if "dos" in info:
        target = np.asarray(info["dos"], dtype=np.float64)
        if target.shape != (grid.n,):
            raise SettingError(
                f"{where}: structure {number} has a DOS of shape {target.shape}, the model has {grid.n} energies"
            )
        if not np.isfinite(target).any():
            raise SettingError(f"{where}: structure {number} has a DOS that is undefined everywhere")
    elif "eigenvalues" in info:
        if "kweights" not in info:
            raise SettingError(
                f"{where}: structure {number} has eigenvalues but no kweights, expected a weight for each k-point"
            )
        levels = np.asarray(info["eigenvalues"], dtype=np.float64)
        bands = Bands.from_arrays(levels, np.atleast_1d(info["kweights"]), n_electrons=electrons)
        target = bands.dos(grid)
        gap = bands.gap()
    else:
        raise SettingError(
            f"{where}: structure {number} has neither dos nor eigenvalues in its info; write one of them to atoms.info, or take other structures with --where"
        )
    return Reference(atoms, target, electrons, _subset(info, subset), gap)


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
    return lambda info: key in info and str(int(info[key]) % int(modulus)) in values
