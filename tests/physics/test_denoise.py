"""Denoising against brute force, frame by frame and member by member, and against upet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.denoising import brute_force, random_network
from helpers.synthetic import GRID, N_ATOMS, N_ELECTRONS, N_MEMBERS, readout, samples, write
from upet.ase.dos import PETMADDOSCalculator

from petdos_md.analysis.analyze import analyze
from petdos_md.base.errors import ChemicalPotentialError, ModelError
from petdos_md.models.loading import PET_MAD_GRID
from petdos_md.physics import thermo
from petdos_md.physics.denoise import SLOPE, THRESHOLD, Denoise, states_below

E, STEP = GRID.energies, GRID.step


@pytest.mark.parametrize(("threshold", "slope"), [(THRESHOLD, SLOPE), (0.0, 0.5)])
def test_equals_brute_force(threshold: float, slope: float) -> None:
    dos = readout().members(np.array([s.features for s in samples(3, seed=1, temperature_K=300.0)]))
    levels = thermo.fermi_level(E, dos, N_ELECTRONS)
    clean = Denoise(E, N_ATOMS, N_ELECTRONS, threshold=threshold, slope=slope)(dos.copy(), slice(0, 3))
    for where in np.ndindex(3, N_MEMBERS):
        expected = brute_force(dos[where], levels[where], N_ELECTRONS, N_ATOMS, threshold, slope)
        np.testing.assert_allclose(clean[where], expected, rtol=2e-5, atol=2e-6)
    # electrons hold exactly at the level, which need not be a grid point
    np.testing.assert_allclose(states_below(E, clean.reshape(-1, GRID.n), levels.ravel()), N_ELECTRONS, rtol=1e-12)


def test_average_of_denoised_frames_per_member(tmp_path: Path) -> None:
    """`analyze(denoise=...)` is the average of denoised frames, each member by itself, and C_el comes from that."""
    frames = samples(30, seed=2, temperature_K=800.0)
    result = analyze(write(tmp_path / "a.zarr", frames), readout(), denoise=True, keep_members=True, reference="raw")
    total = np.zeros((1 + N_MEMBERS, GRID.n))
    for sample in frames:
        for k, dos in enumerate([readout().dos(sample.features), *readout().members(sample.features)]):
            level = float(thermo.fermi_level(E, dos, N_ELECTRONS))
            total[k] += sample.weight * brute_force(dos, level, N_ELECTRONS, N_ATOMS)
    total /= sum(s.weight for s in frames)
    at = result.isel(temperature=0)
    np.testing.assert_allclose(at["dos"], total[0], rtol=3e-5, atol=3e-6)
    np.testing.assert_allclose(at["dos_members"], total[1:], rtol=3e-5, atol=3e-6)
    own, *heat = thermo.heat_capacity(E, total, N_ELECTRONS, 800.0)
    assert float(at["heat_capacity"]) == pytest.approx(own, rel=1e-4)
    assert float(at["heat_capacity_member_mean"]) == pytest.approx(np.mean(heat), rel=1e-4)
    assert float(at["heat_capacity_model_std"]) == pytest.approx(np.std(heat, ddof=1), rel=1e-3)
    assert result.attrs["denoise"] == "Eqs. 11-16, Fermi level from the integral of the raw DOS"
    assert result.attrs["transform"] == "denoise"
    raw = analyze(write(tmp_path / "b.zarr", frames), readout(), reference="raw")
    assert raw.attrs["denoise"] == "no"
    change = 100 * (own / float(raw["heat_capacity"][0]) - 1)
    assert abs(change) > 0.1
    assert any(f"it only changes C_el, by {change:+.1f} %" in note for note in result.attrs["notes"])


def test_network_says_where_the_electrons_hold(tmp_path: Path) -> None:
    network = random_network(level=-0.3)
    frames = samples(4, seed=3, temperature_K=500.0)
    dos = readout().members(np.array([s.features for s in frames]))
    levels = network(dos, N_ATOMS)
    assert levels.shape == dos.shape[:2] and levels.std() > 1e-4
    result = analyze(write(tmp_path / "a.zarr", frames), readout(), denoise=network, keep_members=True, reference="raw")
    brute = [
        [brute_force(d, x, N_ELECTRONS, N_ATOMS) for d, x in zip(*pair, strict=True)]
        for pair in zip(dos, levels, strict=True)
    ]
    w = np.array([s.weight for s in frames])
    expected = np.einsum("f,fke->ke", w / w.sum(), np.array(brute))
    np.testing.assert_allclose(result["dos_members"][0], expected, rtol=3e-5, atol=3e-6)
    assert result.attrs["denoise"].endswith("random fermi_level")


def test_equals_upet_but_for_the_limit_of_its_integral(tmp_path: Path) -> None:
    """upet integrates up to the grid point above floor(E_F); given that limit, all else agrees to 1e-4."""
    torch.manual_seed(5)
    rng = np.random.default_rng(5)
    n_atoms, grid = 8, PET_MAD_GRID
    x = grid.energies
    dos = n_atoms * (
        0.6 * np.exp(-((x + 20) ** 2) / 8) + 0.4 * np.sqrt(np.maximum(x + 12, 0)) / (1 + np.exp((x - 9) * 2))
    )
    dos = dos + 0.05 * np.convolve(rng.normal(size=grid.n), np.ones(7) / 7, "same")
    level = 3.333 - grid.start  # as upet counts: from the first channel
    atoms = Atoms("Al8", positions=np.arange(24).reshape(8, 3))

    class Bare:
        """The part of the calculator that denoising needs."""

        sigmoid = torch.nn.Sigmoid()

    theirs = PETMADDOSCalculator._denoise_predictions(Bare(), atoms, torch.tensor([level]), torch.tensor(dos)[None])
    theirs = theirs.numpy()[0]
    upper = grid.start + (np.floor(level / grid.step) + 1) * grid.step

    def fixed(at: float) -> np.ndarray:
        return Denoise(x, n_atoms, 24.0, lambda d, n: np.full(len(d), at))(dos.copy()[None, None], slice(0, 1))[0, 0]

    np.testing.assert_allclose(fixed(upper), theirs, rtol=1e-4, atol=1e-6)
    # With the Fermi level itself the scale differs, by less than a grid step's worth of states.
    assert 0 < abs(fixed(3.333).max() / theirs.max() - 1) < 0.05 * dos.max() / 24.0 + 0.01


def test_bad_input(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.zarr", samples(3, seed=1, temperature_K=300.0))
    with pytest.raises(ModelError, match="no network for the Fermi level lies beside the model"):
        analyze(trace, readout(), denoise="network")
    with pytest.raises(ModelError, match="is a network for gap, expected one for fermi_level"):
        analyze(trace, readout(), denoise=random_network("gap"))
    with pytest.raises(ModelError, match="another energy grid"):
        analyze(trace, readout(), denoise=random_network(grid=PET_MAD_GRID))
    with pytest.raises(ChemicalPotentialError, match=r"of 24 electrons lie below the Fermi level -11\.5"):
        Denoise(E, N_ATOMS, N_ELECTRONS, lambda d, n: np.full(len(d), -11.5))(
            readout().members(np.array([samples(1, 1, 300.0)[0].features])), slice(0, 1)
        )
    with pytest.raises(ValueError, match="denoise and transform"):
        analyze(trace, readout(), denoise=True, transform=lambda dos, frames: dos)
