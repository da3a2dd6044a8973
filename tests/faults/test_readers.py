"""Random structures written by ASE in each format are read back as they were; randomly damaged files give right frames or one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.io.netcdftrajectory import NetCDFTrajectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petdos_md.base.errors import PetdosError
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.engines.structures.files import read_frames
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

# The same examples in every run, so that a failure is of the change at hand; PETDOS_FUZZ=1 takes others each time.
HERE = settings(
    max_examples=25,
    deadline=None,
    derandomize="PETDOS_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
COORDINATE = st.floats(-50, 50, allow_nan=False).map(lambda x: round(x, 6))
LABELS = ("step", "time_fs", "weight", "temperature_K", "replica")


@st.composite
def structures(draw: st.DrawFn, periodic: bool = False) -> Atoms:
    """One to six atoms of any element in a cell with a volume, with labels."""
    n = draw(st.integers(1, 6))
    numbers = draw(st.lists(st.integers(1, 100), min_size=n, max_size=n))
    positions = draw(st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE), min_size=n, max_size=n))
    tilt = draw(st.lists(st.floats(-2, 2).map(lambda x: round(x, 5)), min_size=6, max_size=6))
    cell = np.diag([9.0, 10.0, 11.0])
    cell[~np.eye(3, dtype=bool)] = tilt
    pbc = True if periodic else draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    atoms = Atoms(numbers, positions, cell=cell, pbc=pbc)
    atoms.info = {
        "step": draw(st.integers(0, 10**9)),
        "time_fs": draw(st.floats(0, 1e9)),
        "weight": draw(st.floats(0, 1e3)),
        "temperature_K": draw(st.floats(1, 1e5)),
        "replica": draw(st.integers(0, 99)),
    }
    return atoms


def same(read: Atoms, written: Atoms, atol: float) -> None:
    assert read.numbers.tolist() == written.numbers.tolist()
    np.testing.assert_allclose(read.positions, written.positions, atol=atol)
    np.testing.assert_allclose(read.cell.array, written.cell.array, atol=atol)
    assert read.pbc.tolist() == written.pbc.tolist()


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.extxyz.gz", "a.xyz.xz", "a.traj", "a.db", "a.json"])
@HERE
@given(frames=st.lists(structures(), min_size=1, max_size=4))
def test_everything_comes_back(name: str, frames: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if name in ("a.db", "a.json"):
        with ase.db.connect(path) as database:
            for atoms in frames:
                database.write(atoms, key_value_pairs=atoms.info)
    else:
        ase.io.write(path, frames)
    read = list(read_frames(path))
    assert [number for number, _ in read] == list(range(len(frames)))
    for (_, atoms), written in zip(read, frames, strict=True):
        same(atoms, written, 1e-8)
        for label in LABELS:
            assert float(atoms.info[label]) == pytest.approx(written.info[label], rel=1e-12)


@HERE
@given(atoms=structures(periodic=True), displaced=COORDINATE)
def test_vasp(atoms: Atoms, displaced: float, tmp_path: Path) -> None:
    """XDATCAR: sorted atoms in one cell, positions as fractions."""
    atoms = atoms[np.argsort(atoms.numbers, kind="stable")]
    other = atoms.copy()
    other.positions += displaced / 100
    ase.io.write(tmp_path / "XDATCAR", [atoms, other], format="vasp-xdatcar")
    read = [frame for _, frame in read_frames(tmp_path / "XDATCAR")]
    assert [frame.info["step"] for frame in read] == ["1", "2"]
    for frame, written in zip(read, (atoms, other), strict=True):
        assert frame.numbers.tolist() == written.numbers.tolist()
        # It keeps the cell and positions within it, to eight digits.
        np.testing.assert_allclose(frame.cell.array, written.cell.array, atol=1e-5)
        shift = frame.get_scaled_positions(wrap=False) - written.get_scaled_positions(wrap=False)
        np.testing.assert_allclose(shift, np.round(shift), atol=1e-5)


@settings(HERE, max_examples=8)
@given(frames=st.integers(1, 3), atoms=structures(periodic=True))
def test_netcdf_of_ase(frames: int, atoms: Atoms, tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.unlink(missing_ok=True)
    atoms.set_cell(np.diag(atoms.cell.lengths()))  # ASE's writer turns other cells
    with NetCDFTrajectory(str(path), "w", atoms) as file:
        for _ in range(frames):
            file.write(atoms)
    read = [frame for _, frame in read_frames(path)]
    assert len(read) == frames
    for frame in read:
        same(frame, atoms, 1e-4)  # single precision


FRAMES = [
    Atoms("AlMg", [[0.1, 0.2, 0.3 + 0.01 * k], [2.0, 2.1, 2.2]], cell=[4.0, 4.1, 4.2], pbc=True, info={"step": k})
    for k in range(4)
]
DAMAGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("swap"), st.floats(0, 1), st.integers(1, 9)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 40)),
)


def damaged(content: bytes, kind: str, where: float, how: int) -> bytes:
    at = min(int(where * len(content)), len(content) - 1)
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ how]) + content[at + 1 :]
    if kind == "drop":
        return content[:at] + content[at + how :]
    lines = content.split(b"\n")
    i = min(int(where * len(lines)), len(lines) - 1)
    j = (i + how) % len(lines)
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def write(path: Path, frames: list[Atoms]) -> None:
    """With ASE, or as LAMMPS writes (ASE has no writer of dumps)."""
    if path.name.startswith("dump"):
        text = ""
        for atoms in frames:
            bounds = "".join(f"0 {x}\n" for x in atoms.cell.lengths())
            rows = "".join(f"{i} {a.symbol} {a.x:.6f} {a.y:.6f} {a.z:.6f}\n" for i, a in enumerate(atoms, 1))
            text += f"ITEM: TIMESTEP\n{atoms.info['step']}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n"
            text += f"ITEM: BOX BOUNDS pp pp pp\n{bounds}ITEM: ATOMS id element x y z\n{rows}"
        path.write_text(text)
    else:
        ase.io.write(path, frames, **({"format": "vasp-xdatcar"} if path.name == "XDATCAR" else {}))


@pytest.mark.parametrize(
    "name", ["a.extxyz", "a.extxyz.gz", "dump.lammpstrj", "XDATCAR", "a.traj", "a.db", "a.cif", "a.pdb"]
)
@settings(HERE, max_examples=60)
@given(damage=DAMAGES)
def test_damaged_files(name: str, damage: tuple[str, float, int], tmp_path: Path) -> None:
    """Nothing but an error of ours, in one line; what was cut off or dropped is never made up."""
    path = tmp_path / name
    path.unlink(missing_ok=True)
    write(path, FRAMES)
    whole = [atoms for _, atoms in read_frames(path)]
    path.write_bytes(damaged(path.read_bytes(), *damage))
    read: list[Atoms] = []
    try:
        for number, atoms in read_frames(path):
            assert number == len(read)
            read.append(atoms)
    except PetdosError as error:
        assert "\n" not in str(error)
    if damage[0] == "cut" and name not in ("a.pdb", "a.cif"):  # with fewer lines these are structures of fewer atoms
        assert len(read) <= len(whole)
        for atoms, expected in zip(read, whole, strict=False):
            same(atoms, expected, 1e-12)


@settings(HERE, max_examples=15)
@given(kind=st.sampled_from(["a.extxyz", "dump.lammpstrj", "a.traj"]), damage=DAMAGES)
def test_nothing_is_left_behind(kind: str, damage: tuple[str, float, int], metal: DOSModel, tmp_path: Path) -> None:
    """Either a trace with samples, or none."""
    path, output = tmp_path / kind, tmp_path / "new" / "o.zarr"
    shutil.rmtree(output.parent, ignore_errors=True)
    write(path, FRAMES)
    path.write_bytes(damaged(path.read_bytes(), *damage))
    try:
        rerun_trajectory(metal, path, output, temperature_K=300)
    except PetdosError as error:
        assert "\n" not in str(error)
        if not output.exists():
            assert not output.parent.exists()
            return
    trace = Trace.open(output, "r")
    assert len(trace) + trace.n_skipped > 0
