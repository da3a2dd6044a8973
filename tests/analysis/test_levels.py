"""Levels of frames by three methods against loops over frames and members."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms
from helpers.denoising import brute_force, random_network
from helpers.synthetic import GRID, N_ATOMS, N_ELECTRONS, N_MEMBERS, readout, samples, write

from petdos_md.analysis.inputs import fermi_network, find_networks
from petdos_md.analysis.levels import band_gap, frame_levels
from petdos_md.analysis.statistics import standard_error
from petdos_md.analysis.weights import FrameWeights
from petdos_md.base.errors import SettingError
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo
from petdos_md.physics.denoise import states_below

E = GRID.energies


def width_below(energies: np.ndarray, dos: np.ndarray, level: float, limit: float) -> float:
    """Width of the interval around a level with a DOS of at most the limit, by walking in steps of 1e-5 eV."""
    x = np.arange(energies[0], energies[-1], 1e-5)
    above = x[np.interp(x, energies, dos) > limit]
    here = int(np.searchsorted(above, level))
    if float(np.interp(level, energies, dos)) > limit:
        return 0.0
    low, high = above[here - 1] if here else energies[0], above[here] if here < len(above) else energies[-1]
    return float(high - low)


def test_three_methods_equal_loops(tmp_path: Path) -> None:
    frames = samples(12, seed=1, temperature_K=700.0) + samples(9, seed=2, temperature_K=300.0, replica=1)
    trace = write(tmp_path / "a.zarr", frames)
    networks = {t: random_network(t, seed=i, level=-0.2) for i, t in enumerate(("fermi_level", "gap"))}
    data = frame_levels(trace, readout(), networks=networks, denoise="network")
    assert data["frame_temperature"].values.tolist() == [300.0] * 9 + [700.0] * 12
    ordered = frames[12:] + frames[:12]
    brute = {name: np.empty((21, 1 + N_MEMBERS)) for name in data.data_vars if "_mean" not in str(name)}
    for i, sample in enumerate(ordered):
        for k, dos in enumerate([readout().dos(sample.features), *readout().members(sample.features)]):
            level = float(networks["fermi_level"](dos, N_ATOMS))
            clean = brute_force(dos, level, N_ELECTRONS, N_ATOMS)
            brute["fermi_level_network"][i, k] = level
            brute["gap_network"][i, k] = float(networks["gap"](dos, N_ATOMS))
            for method, g in (("raw", dos), ("denoised", clean)):
                found = float(thermo.fermi_level(E, g, N_ELECTRONS))
                at = float(np.interp(found, E, g))
                brute[f"fermi_level_{method}"][i, k] = found
                brute[f"dos_at_fermi_level_{method}"][i, k] = at
                brute[f"gap_{method}"][i, k] = width_below(E, g, found, 0.1 * N_ATOMS)
    for name in ("fermi_level_network", "gap_network", "fermi_level_raw", "fermi_level_denoised", "gap_denoised",
                 "dos_at_fermi_level_raw", "dos_at_fermi_level_denoised"):  # fmt: skip
        expected = brute[name]
        np.testing.assert_allclose(data[name], expected[:, 0], rtol=1e-4, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(
            data[f"{name}_model_std"], expected[:, 1:].std(axis=1, ddof=1), rtol=1e-3, atol=2e-5, err_msg=name
        )
        w = np.array([s.weight for s in ordered])
        for t, rows in ((0, slice(0, 9)), (1, slice(9, 21))):
            own, *of_members = w[rows] @ expected[rows] / w[rows].sum()
            assert float(data[f"{name}_mean"][t]) == pytest.approx(own, rel=1e-4, abs=2e-5)
            assert float(data[f"{name}_mean_model_std"][t]) == pytest.approx(
                np.std(of_members, ddof=1), rel=1e-3, abs=2e-5
            )
            error = standard_error(expected[rows, 0], w[rows]).error
            assert float(data[f"{name}_mean_sampling_err"][t]) == pytest.approx(
                float(error), rel=2e-3, abs=1e-5, nan_ok=True
            )
    assert np.isnan(data["dos_at_fermi_level_network"]).all()  # there is no such network
    assert data.attrs["networks"] == ["fermi_level: random fermi_level", "gap: random gap"]


def test_gap_of_known_edges() -> None:
    """A gap between straight edges that cross the threshold where a line says."""
    energies = np.linspace(-10, 10, 401)
    dos = np.interp(energies, [-6, -5, -1, 0, 2, 4, 8, 9], [0, 2, 2, 0, 0, 2, 2, 0])
    filled = np.trapezoid(dos[energies <= 1], energies[energies <= 1])
    # 0.1 states/eV/atom for 4 atoms: crossed 0.2 eV below 0 and 0.4 eV above 2
    assert float(band_gap(energies, dos, filled, 4)) == pytest.approx(2.0 + 0.2 + 0.4, abs=1e-9)
    assert float(band_gap(energies, dos, filled - 4.0, 4)) == 0.0


def test_bad_input(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.zarr", samples(3, seed=1, temperature_K=300.0))
    high = float(states_below(E, readout().members(trace[0].features).mean(axis=0)[None], np.array([11.4]))[0])
    with pytest.raises(SettingError, match=r"grid ends at 12\.00 eV, less than 1 eV above the Fermi level 11\.\d+ eV"):
        frame_levels(trace, readout(), n_electrons=high)
    with pytest.raises(SettingError, match="got the method 'high', expected some of raw, denoised, network"):
        frame_levels(trace, readout(), methods=("high",))
    with pytest.raises(SettingError, match="the model has no networks"):
        frame_levels(trace, readout(), methods=("network",))
    zero = FrameWeights({(0, 10 * i): 0.0 for i in range(3)})
    with pytest.raises(SettingError, match="all weights at 300 K are zero"):
        frame_levels(trace, readout(), weights=zero)


def test_progress_ends_with_the_whole(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.zarr", samples(12, seed=1, temperature_K=300.0))
    calls: list[tuple[int, int]] = []
    frame_levels(trace, readout(), methods=("raw",), progress=lambda done, total: calls.append((done, total)))
    total = 12 * (1 + N_MEMBERS)  # the model's own DOS and its members
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize(
    ("name", "crystal", "gap_eV"),
    [
        ("almgsi-lda", ase.build.bulk("Al", cubic=True), (0.0, 0.05)),
        # LDA and PBEsol give 0.3 to 0.6 eV without spin-orbit coupling; of its gap the network errs by 0.2 eV
        ("trio-pbesol", ase.build.bulk("GaAs", "zincblende", a=5.65, cubic=True), (0.2, 1.0)),
    ],
    ids=["almgsi-lda", "trio-pbesol"],
)
def test_networks_lie_beside_the_model(name: str, crystal: Atoms, gap_eV: tuple[float, float]) -> None:
    """That of the trace, or one that is named; a readout in memory has none. Those that are shipped tell a metal from a semiconductor."""
    model = DOSModel.load(name, "cpu")
    everywhere = {"fermi_level", "gap", "dos_at_fermi_level"}
    nowhere = replace(model.info, path="")
    assert set(find_networks(None, model.info, model.readout)) == everywhere
    assert set(find_networks(name, nowhere, model.readout)) == everywhere
    assert set(find_networks(model, nowhere, model.readout)) == everywhere
    assert find_networks(model.readout, model.info, model.readout) == find_networks(None, nowhere, model.readout) == {}
    sample, networks = model.evaluate(crystal), find_networks(model, model.info, model.readout)
    dos = model.dos(sample)[None]
    assert gap_eV[0] <= networks["gap"](dos, len(crystal))[0] <= gap_eV[1]
    network = fermi_network("network", name, model.info, model.readout)
    assert network is not None and network.model == model.info.fingerprint
    integral = float(thermo.fermi_level(model.grid.energies, dos[0], sample.n_electrons))
    assert network(dos, len(crystal))[0] == pytest.approx(integral, abs=0.6)
