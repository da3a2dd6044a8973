"""Random cells and labels: what a cell is must not depend on how it is written down, and a label arrives as it was given.

Oracles: a sum over all images within reach for the sum of cutoff functions, symmetry for the rest; a plain list for labels.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from petdos_md.base.errors import StructureError
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.models.model import DOSModel
from petdos_md.models.structures import LEAST_HEIGHT_A
from petdos_md.models.testing import SMALL
from petdos_md.traces.trace import Trace

HERE = settings(
    max_examples=25,
    deadline=None,
    derandomize="PETDOS_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
NUMBER = st.floats(-1, 1, allow_nan=False)
VECTOR = st.tuples(NUMBER, NUMBER, NUMBER)


@st.composite
def structures(draw: st.DrawFn) -> Atoms:
    """One to four atoms in any cell with a volume, of either hand, with any of its directions periodic."""
    cell = 5.0 * np.array(draw(st.tuples(VECTOR, VECTOR, VECTOR)))
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    # Otherwise an atom has thousands of neighbors, and the sum over images takes minutes.
    assume(heights(cell).min() > 1.2)
    n = draw(st.integers(1, 4))
    fractions = np.array(draw(st.lists(VECTOR, min_size=n, max_size=n)))
    symbols = draw(st.lists(st.sampled_from(["Al", "Mg", "Si"]), min_size=n, max_size=n))
    return Atoms(symbols, fractions @ cell, cell=cell, pbc=pbc)


def heights(cell: np.ndarray) -> np.ndarray:
    """Distances of opposite faces, from cross products."""
    volume = abs(np.linalg.det(cell))
    areas = [np.linalg.norm(np.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])) for k in range(3)]
    return volume / np.maximum(areas, 1e-12)


def sum_of_cutoffs(atoms: Atoms) -> float:
    """Over all pairs within reach, each counted from both sides: the smooth step of the model's network."""
    reach, width = SMALL["cutoff"], 0.5  # the width is that of metatrain
    most = [int(np.ceil((reach + np.ptp(atoms.positions @ np.linalg.inv(atoms.cell.array), axis=0)[k] * h) / h)) + 1 if p else 0
            for k, (p, h) in enumerate(zip(atoms.pbc, heights(atoms.cell.array), strict=True))]  # fmt: skip
    images = np.array(list(itertools.product(*(range(-m, m + 1) for m in most)))) @ atoms.cell.array
    vectors = atoms.positions[None, :, None] - atoms.positions[:, None, None] + images
    d = np.linalg.norm(vectors, axis=-1).ravel()
    d = d[(d > 1e-9) & (d < reach)]
    x = np.clip((d - (reach - width)) / width, 1e-6, 1 - 1e-6)
    return float((0.5 * (1 + np.tanh(1 / np.tan(np.pi * x)))).sum())


@HERE
@given(atoms=structures())
def test_neighbors_are_those_of_all_images(atoms: Atoms, model: DOSModel) -> None:
    assume(_apart(atoms))
    features = model.evaluate(atoms).features
    assert features[-2] == len(atoms)
    assert features[-1] == pytest.approx(sum_of_cutoffs(atoms), rel=1e-5, abs=1e-4)


@HERE
@given(
    atoms=structures(),
    shifts=st.lists(st.tuples(*[st.integers(-30, 30)] * 3), min_size=4, max_size=4),
    where=VECTOR,
    mixed=st.permutations(range(3)),
    sheared=st.tuples(*[st.integers(-1, 1)] * 3),
)
def test_one_crystal_written_in_many_ways(atoms, shifts, where, mixed, sheared, model: DOSModel) -> None:
    """Atoms in other images, another origin, vectors in another order or with multiples of others added: one DOS, volume, N."""
    assume(_apart(atoms))
    expected = model.evaluate(atoms)
    other = atoms.copy()
    periodic = np.where(atoms.pbc, 1, 0)
    other.positions += (np.array(shifts[: len(atoms)]) * periodic) @ atoms.cell.array + np.array(where)
    cell = atoms.cell.array.copy()
    for k, (a, b) in enumerate(((0, 1), (1, 2), (2, 0))):
        if atoms.pbc[a] and atoms.pbc[b]:
            cell[a] = cell[a] + sheared[k] * cell[b]
    # Of directions that are not periodic the cell has no meaning.
    cell[~atoms.pbc] *= 1.7
    mixed = list(mixed)
    other.cell, other.pbc = cell[mixed], atoms.pbc[mixed]
    found = model.evaluate(other)
    np.testing.assert_allclose(
        found.features, expected.features, rtol=3e-4, atol=3e-4 * np.abs(expected.features).max()
    )
    assert found.volume_A3 == pytest.approx(expected.volume_A3, rel=1e-9, nan_ok=True)
    assert np.isfinite(found.volume_A3) == atoms.pbc.all()


@HERE
@given(cell=st.tuples(VECTOR, VECTOR, VECTOR), thin=st.floats(0, 0.29), axis=st.integers(0, 2))
def test_cells_without_a_volume(cell, thin: float, axis: int, model: DOSModel) -> None:
    """A cell that is thin in a periodic direction is refused at once, whichever vector is at fault."""
    vectors = 6.0 * np.array(cell)
    assume(heights(vectors).min() > 1.2)
    others = np.delete(vectors, axis, axis=0)
    normal = np.cross(*others)
    # What is left of the vector when it is pressed into the plane of the others, all but a bit.
    vectors[axis] += (thin / heights(vectors)[axis] - 1) * (vectors[axis] @ normal) * normal / (normal @ normal)
    assert heights(vectors)[axis] == pytest.approx(thin, abs=1e-9) and thin < LEAST_HEIGHT_A
    with pytest.raises(StructureError, match=r"the cell is .* angstrom thin in a periodic direction"):
        model.evaluate(Atoms("Al", cell=vectors, pbc=True))


@settings(HERE, max_examples=12)
@given(
    frames=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-3, 5), st.integers(0, 3), st.floats(1, 9000), st.floats(0, 10), st.floats(-1e9, 1e9)),
        min_size=1,
        max_size=12,
    ),
    batch=st.integers(1, 5),
)  # fmt: skip
def test_labels(frames, batch: int, metal: DOSModel, tmp_path: Path) -> None:
    """Of frames with any replicas and steps: each is in the trace once, with its own labels; steps that come again begin a new run."""
    path, output = tmp_path / "a.traj", tmp_path / "o.zarr"
    for old in (path, output):
        if old.exists():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    written = []
    for replica, step, which, temperature, weight, time in frames:
        atoms = Atoms("AlMg", [[0, 0, 0], [2.1, 2.0, 1.9 + 0.05 * which]], cell=[4.0, 4.1, 4.2], pbc=True)
        atoms.info = {"replica": replica, "step": step, "temperature_K": temperature, "weight": weight, "time_fs": time}
        written.append(atoms)
    ase.io.write(path, written)
    expected, now, taken, held = [], {}, set(), {}
    for replica, step, which, temperature, weight, time in frames:
        if replica not in now:
            now[replica] = replica if replica not in taken else max(taken) + 1
            taken.add(now[replica])
        if held.get((now[replica], step)) == which:
            continue
        if (now[replica], step) in held:
            now[replica] = max(taken) + 1
            taken.add(now[replica])
        held[now[replica], step] = which
        expected.append((now[replica], step, temperature, weight, time))
    result = rerun_trajectory(metal, path, output, batch=batch)
    trace = Trace.open(output, "r")
    found = zip(
        trace.replica.tolist(), trace.step.tolist(), trace.temperature_K, trace.weight, trace.time_fs, strict=True
    )
    assert list(found) == expected
    assert (result.n_new, result.n_known) == (len(expected), len(frames) - len(expected))


def _apart(atoms: Atoms) -> bool:
    """No two atoms so close that single precision makes a difference."""
    distances = [
        np.linalg.norm(atoms.positions[i] - atoms.positions[j] + np.array(n) @ (atoms.cell.array * atoms.pbc[:, None]))
        for i in range(len(atoms))
        for j in range(len(atoms))
        for n in itertools.product((-2, -1, 0, 1, 2), repeat=3)
        if i != j
    ]
    return min(distances, default=9.0) > 0.5
