"""Eigenvalues to DOS: brute-force sums, upet's function, and pw.x output read through two libraries."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointDFTCalculator, SinglePointKPoint
from upet.ase.dos.utils import dos_from_eigenvalues

from petdos_md.base.errors import SettingError
from petdos_md.base.grid import EnergyGrid
from petdos_md.physics.dft import Bands

DATA = Path(__file__).parents[1] / "data"
GRID = EnergyGrid(-10.0, 0.05, 500)


def unpack(name: str, folder: Path) -> Path:
    with lzma.open(DATA / f"{name}.xz") as packed, open(folder / name, "wb") as plain:
        shutil.copyfileobj(packed, plain)
    return folder / name


def some_bands(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(-6, 9, (5, 4)), axis=1), rng.uniform(0.1, 1, 5)


def test_equals_sums_and_upet() -> None:
    levels, w = some_bands()
    bands = Bands.from_arrays(levels, w)
    dos = bands.dos(GRID)
    brute = np.zeros(GRID.n)
    for k in range(5):
        for level in levels[k]:
            brute += (
                2 * w[k] / w.sum() * np.exp(-0.5 * ((GRID.energies - level) / 0.3) ** 2) / (0.3 * np.sqrt(2 * np.pi))
            )
    top = levels[:, -1].min() - 0.9
    np.testing.assert_array_equal(np.isnan(dos), GRID.energies > top)
    np.testing.assert_allclose(dos[GRID.energies <= top], brute[GRID.energies <= top], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(bands.whole_dos(GRID.energies), brute, rtol=1e-12, atol=1e-300)
    # upet repeats the weights as if bands came first; k-point by k-point its sum is the same
    theirs = np.zeros(GRID.n)
    for k in range(5):
        one, _ = dos_from_eigenvalues(
            torch.tensor(GRID.energies),
            torch.tensor(0.3),
            torch.tensor(levels[k : k + 1]),
            torch.tensor(bands.weights[k : k + 1]),
        )
        theirs += one.numpy()
    np.testing.assert_allclose(brute, theirs, rtol=1e-5, atol=1e-12)


def test_spin_channels_and_spinors() -> None:
    up, w = some_bands(1)
    down = up + 0.4
    polarized = Bands.from_arrays(np.stack([up, down]), w)
    separate = [0.5 * Bands.from_arrays(x, w).whole_dos(GRID.energies) for x in (up, down)]
    np.testing.assert_allclose(polarized.whole_dos(GRID.energies), sum(separate), rtol=1e-12, atol=1e-300)
    assert polarized.weights.sum() == pytest.approx(2.0)
    # a k-point without weight (of a band structure, say) adds nothing
    idle = Bands.from_arrays(np.vstack([up, up[:1] - 0.3]), np.append(w, 0.0))
    np.testing.assert_allclose(
        idle.whole_dos(GRID.energies), Bands.from_arrays(up, w).whole_dos(GRID.energies), rtol=1e-12
    )
    # a degenerate pair of spinors is one band of both spins
    doubled = Bands.from_arrays(np.repeat(up, 2, axis=1), w, spinors=True)
    np.testing.assert_allclose(
        doubled.whole_dos(GRID.energies), Bands.from_arrays(up, w).whole_dos(GRID.energies), rtol=1e-12
    )


@pytest.mark.parametrize("name, n_rows", [("al", 4), ("alspin", 8)])
def test_quantum_espresso_read_in_two_ways(name: str, n_rows: int, tmp_path: Path) -> None:
    """The XML through qeschema and the printed output through ASE are of one run of pw.x."""
    xml = Bands.from_qe_xml(unpack(f"{name}.xml", tmp_path))
    printed = Bands.from_ase(ase.io.read(unpack(f"{name}.pwo", tmp_path), format="espresso-out").calc)
    assert xml.eigenvalues.shape == printed.eigenvalues.shape == (n_rows, 8)
    np.testing.assert_allclose(xml.eigenvalues, printed.eigenvalues, atol=6e-5)  # printed with four digits
    np.testing.assert_allclose(xml.weights, printed.weights, atol=1e-6)
    assert xml.fermi_level == pytest.approx(printed.fermi_level, abs=6e-5)
    assert xml.n_electrons == 3 and xml.weights.sum() == pytest.approx(2.0)
    assert xml.gap() == 0.0


def test_gap_of_the_eigenvalues() -> None:
    bands = Bands.from_arrays(np.array([[-5.0, 0.2, 3.0], [-4.0, 0.1, 2.5]]), np.array([1.0, 3.0]))
    assert bands.gap(4) == pytest.approx(2.3)
    # four electrons in bands that overlap: two levels of a mesh of k-points are apart, but this is a metal
    metal = Bands.from_arrays(np.array([[-5.0, 0.2, 0.7], [-4.0, 1.1, 2.5]]), np.array([1.0, 1.0]))
    assert metal.gap(4) == 0.0
    spins = Bands.from_arrays(np.array([[[-5.0, 0.2, 3.0]], [[-4.0, 1.1, 2.5]]]), np.array([1.0]))
    assert spins.gap(3) == pytest.approx(0.9)  # two electrons up, one down
    assert bands.gap(3.0) == 0.0  # the second band is filled in part
    with pytest.raises(SettingError, match="fill all computed bands"):
        bands.gap(6)
    with pytest.raises(SettingError, match="expected a positive number"):
        bands.gap()


def test_bad_input(tmp_path: Path) -> None:
    levels, w = some_bands()
    with pytest.raises(SettingError, match="no weights of the k-points"):
        Bands.from_arrays(levels, None)
    with pytest.raises(SettingError, match=r"got shapes \(5, 4\) and \(4,\)"):
        Bands.from_arrays(levels, w[:4])
    with pytest.raises(SettingError, match="not all zero"):
        Bands.from_arrays(levels, 0 * w)
    with pytest.raises(SettingError, match="must be finite"):
        Bands.from_arrays(levels * np.nan, w)
    with pytest.raises(SettingError, match="EMT: has no eigenvalues on k-points"):
        Bands.from_ase(EMT())
    with pytest.raises(SettingError, match="no such file"):
        Bands.from_qe_xml(tmp_path / "none.xml")
    (tmp_path / "a.xml").write_text("<html></html>")
    with pytest.raises(SettingError, match=r"no band structure of pw\.x in it"):
        Bands.from_qe_xml(tmp_path / "a.xml")
    with pytest.raises(ValueError, match="cuts off the lowest state"):
        Bands.from_arrays(levels, w).dos(EnergyGrid(-3.0, 0.05, 200))


def test_calculation_that_kept_no_eigenvalues() -> None:
    """As ASE reads it from an output with few words: k-points and weights, but None for the bands of one of them."""
    levels = [np.array([-1.0, 0.5]), None]
    calculator = SinglePointDFTCalculator(Atoms("Al"), efermi=0.0)
    calculator.kpts = [SinglePointKPoint(0.5, 0, k) for k in range(2)]
    for point, bands in zip(calculator.kpts, levels, strict=True):
        point.eps_n = bands
    calculator.ibz_kpts = np.zeros((2, 3))
    with pytest.raises(SettingError, match=r"has no eigenvalues on k-points \(no eigenvalues\)"):
        Bands.from_ase(calculator)
    calculator.kpts[1].eps_n = np.array([-0.9, 0.6])
    np.testing.assert_allclose(Bands.from_ase(calculator).eigenvalues.ravel(), [-1.0, 0.5, -0.9, 0.6])
