"""The average DOS relative to the Fermi level: what a shift of a member's energies must not do, and what the error of a run is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import FINGERPRINT, write

from petdos_md.analysis.analyze import analyze
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.models.readout import Readout
from petdos_md.physics import thermo
from petdos_md.traces.trace import Trace

GRID = EnergyGrid(-10.0, 0.05, 401)
E = GRID.energies
N_MEMBERS, N_ELECTRONS = 8, 7.0


def curve(shift: float | np.ndarray) -> np.ndarray:
    """A metal with a dip, moved as a whole; smooth, so that interpolation is good to 1e-4."""
    x = E - np.asarray(shift)[..., None]
    return (
        2.0 / (1 + np.exp(-(x + 5) / 0.25)) / (1 + np.exp((x - 6) / 0.3)) * (1 - 0.6 * np.exp(-((x + 1.5) ** 2) / 1.5))
    )


def shifted_members(shifts: np.ndarray) -> Readout:
    """A model whose mean is that of members that are one curve, each moved by its own shift."""
    members = curve(shifts)
    mean = members.mean(axis=0)
    weights = np.stack([mean, np.cos(E) * 0.02, 0 * E, 0 * E], axis=1)  # two features, N and s
    deviations = np.zeros((len(shifts), GRID.n, 2))
    deviations[:, :, 0] = members - mean
    return Readout.from_arrays(GRID, weights, deviations, FINGERPRINT)


def run(path: Path, features: np.ndarray, temperature_K: float = 900.0) -> Trace:
    info = ModelInfo("shifted", FINGERPRINT, GRID, "separated", 4, N_MEMBERS, {"Al": 3.0}, "")
    frames = [
        Sample(np.array([*f, 1, 0], dtype=np.float32), info, 1, N_ELECTRONS, 20.0, step=i, temperature_K=temperature_K)
        for i, f in enumerate(features)
    ]
    return write(path, frames)


SHIFTS = 0.27 * np.random.default_rng(0).normal(size=N_MEMBERS)


def test_members_that_are_rigid_shifts_agree(tmp_path: Path) -> None:
    trace, model = run(tmp_path / "a.zarr", np.tile([1.0, 0.0], (40, 1))), shifted_members(SHIFTS)
    raw = analyze(trace, model, reference="raw").isel(temperature=0)
    fermi = analyze(trace, model, reference="fermi", keep_members=True).isel(temperature=0)
    assert float(raw["dos_model_std"].max()) > 0.05  # of the model's own axis
    inside = np.abs(fermi["energy"].values) < 8
    assert float(fermi["dos_model_std"][inside].max()) < 5e-4
    assert float(fermi["dos_members"].std("member")[inside].max()) < 5e-4
    # The value is that of the model itself, at its own Fermi level.
    mean = curve(SHIFTS).mean(axis=0)
    own = np.interp(float(thermo.fermi_level(E, mean, N_ELECTRONS)) + fermi["energy"].values, E, mean)
    np.testing.assert_allclose(fermi["dos"].values[inside], own[inside], atol=1e-5)
    frames = analyze(trace, model, reference="fermi", align="frames").isel(temperature=0)
    np.testing.assert_allclose(frames["dos"].interp(energy=fermi["energy"][inside]), fermi["dos"][inside], atol=1e-3)
    assert [d.attrs["dos_alignment"].split()[0] for d in (raw, fermi, frames)] == ["none:", "the", "every"]
    assert np.abs(fermi["energy"].values).min() < 1e-9
    assert float(fermi["fermi_level_model_std"]) == pytest.approx(SHIFTS.std(ddof=1), rel=1e-3)


def test_whole_grid_steps_leave_nothing(tmp_path: Path) -> None:
    steps = 0.05 * np.array([-8, -5, -1, 0, 2, 3, 6, 9])
    trace, model = run(tmp_path / "a.zarr", np.tile([1.0, 0.0], (20, 1))), shifted_members(steps)
    std = analyze(trace, model, reference="fermi")["dos_model_std"].values[0]
    assert std[20:-20].max() < 1e-6  # of 2 states/eV; weights are float32


def test_errors_of_members_that_differ_in_shape_as_well(tmp_path: Path) -> None:
    """Brute force: each member's average by itself."""
    model, features = (
        shifted_members(SHIFTS),
        np.stack([np.random.default_rng(k).normal(1, 0.2, 60) for k in (1, 2)], axis=1),
    )
    trace = run(tmp_path / "a.zarr", features)
    result = analyze(trace, model, reference="fermi").isel(temperature=0)
    mean = np.array([*trace.features[:].astype(float).mean(axis=0)])
    members = model.members(mean)
    levels = [float(thermo.fermi_level(E, member, N_ELECTRONS)) for member in members]
    aligned = np.array([np.interp(e + result["energy"].values, E, m) for e, m in zip(levels, members, strict=True)])
    own = model.dos(mean)
    own = np.interp(float(thermo.fermi_level(E, own, N_ELECTRONS)) + result["energy"].values, E, own)
    np.testing.assert_allclose(result["dos"], own, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(result["dos_model_std"], aligned.std(axis=0, ddof=1), rtol=1e-6, atol=1e-9)


def test_sampling_error_of_the_aligned_dos_is_the_spread_over_runs(tmp_path: Path) -> None:
    """Frames that are shifted against each other and differ in shape; the response of the Fermi level counts."""
    direct, repeats, n = Readout.for_direct(GRID, None, 0, FINGERPRINT), 100, 120
    info = ModelInfo("direct", FINGERPRINT, GRID, "direct", GRID.n, 0, {}, "")
    found, told, raw = [], [], []
    window = np.linspace(-4, 4, 33)
    for k in range(repeats):
        rng = np.random.default_rng(k)
        spectra = curve(0.1 * rng.normal(size=n)) + 0.05 * rng.normal(size=(n, 1)) * np.exp(-((E - 0.5) ** 2))
        frames = [
            Sample(g.astype(np.float32), info, 1, N_ELECTRONS, 20.0, step=i, temperature_K=900.0)
            for i, g in enumerate(spectra)
        ]
        trace = write(tmp_path / f"{k}.zarr", frames)
        result = analyze(trace, direct, reference="fermi").isel(temperature=0)
        found.append(np.interp(window, result["energy"], result["dos"]))
        told.append(np.interp(window, result["energy"], result["dos_sampling_err"]))
        if k < 20:  # enough for a mean error
            own = analyze(trace, direct, reference="raw").isel(temperature=0)
            raw.append(np.interp(window + float(own["fermi_level"]), own["energy"], own["dos_sampling_err"]))
    spread, told, raw = np.std(found, axis=0, ddof=1), np.mean(told, axis=0), np.mean(raw, axis=0)
    ratio = told / spread
    assert (np.abs(ratio - 1) < 0.2).all()  # 100 repeats tell the spread to 7 %
    # Errors of the raw axis are those of the shifts: several times as large where the curve is steep.
    assert (raw / spread).max() > 2
