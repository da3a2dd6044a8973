"""The analysis of traces against brute force, and of repeated runs against their own spread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from ase import Atoms
from helpers.synthetic import FINGERPRINT, GRID, N_ATOMS, N_ELECTRONS, N_MEMBERS, info, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.statistics import standard_error
from petdos_md.base.errors import ModelError, NoSamplesError, StructureError, TraceError
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.models.model import DOSModel
from petdos_md.models.readout import Readout
from petdos_md.physics import thermo
from petdos_md.physics.quantities import LINEAR, derive, kernels
from petdos_md.traces.trace import Trace

E = GRID.energies


def mean_members(frames: list[Sample]) -> np.ndarray:
    """Average DOS of each member, frame by frame."""
    total = np.zeros((N_MEMBERS, GRID.n))
    for sample in frames:
        total += sample.weight * readout().members(sample.features)
    return total / sum(sample.weight for sample in frames)


@pytest.fixture(scope="module")
def runs() -> dict[float, list[Sample]]:
    return {t: samples(120, seed=int(t), temperature_K=t) for t in (400.0, 1200.0)}


@pytest.fixture(scope="module")
def trace(runs: dict[float, list[Sample]], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Two temperatures in two replicas, written in turn as an exchange run does."""
    frames = [replace(s, replica=k) for pair in zip(*runs.values(), strict=True) for k, s in enumerate(pair)]
    return write(tmp_path_factory.mktemp("analysis") / "run.zarr", frames)


def test_values_and_model_errors_equal_brute_force(trace: Trace, runs: dict[float, list[Sample]]) -> None:
    result = analyze(trace, readout(), keep_members=True, reference="raw")
    assert result["temperature"].values.tolist() == [400.0, 1200.0]
    functions = {
        "chemical_potential": thermo.chemical_potential,
        "internal_energy": thermo.internal_energy,
        "entropy": thermo.entropy,
        "free_energy": thermo.free_energy,
        "heat_capacity": thermo.heat_capacity,
        "thermal_energy": thermo.thermal_energy,
    }
    for i, (t, frames) in enumerate(runs.items()):
        at, members = result.isel(temperature=i), mean_members(frames)
        np.testing.assert_allclose(at["dos"], members.mean(axis=0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(at["dos_members"], members, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(at["dos_model_std"], members.std(axis=0, ddof=1), rtol=1e-7, atol=1e-12)
        for name, function in functions.items():
            brute = np.array([float(function(E, member, N_ELECTRONS, t)) for member in members])
            of_mean = float(function(E, members.mean(axis=0), N_ELECTRONS, t))
            assert float(at[name]) == pytest.approx(of_mean, rel=1e-9), name
            assert float(at[f"{name}_model_std"]) == pytest.approx(brute.std(ddof=1), rel=1e-6), name
        levels = thermo.fermi_level(E, members, N_ELECTRONS)
        of_mean = float(thermo.fermi_level(E, members.mean(axis=0), N_ELECTRONS))
        assert float(at["fermi_level"]) == pytest.approx(of_mean, rel=1e-9)
        shifts = thermo.chemical_potential(E, members, N_ELECTRONS, t) - levels
        assert float(at["chemical_potential_shift_model_std"]) == pytest.approx(shifts.std(ddof=1), rel=1e-6)
        of_members = thermo.heat_capacity(E, members, N_ELECTRONS, t)
        assert float(at["heat_capacity_member_mean"]) == pytest.approx(of_members.mean(), rel=1e-9)
        np.testing.assert_allclose(
            at["heat_capacity_members"], thermo.heat_capacity(E, members, N_ELECTRONS, t), rtol=1e-9
        )
        assert float(at["heat_capacity_finite_difference"]) == pytest.approx(float(at["heat_capacity"]), rel=1e-4)
        assert int(at["n_samples"]) == 120 and float(at["electrons"]) == N_ELECTRONS
        w = np.array([s.weight for s in frames])
        assert float(at["kinetic_temperature"]) == pytest.approx(
            w @ [s.kinetic_temperature_K for s in frames] / w.sum()
        )
        assert float(at["volume"]) == pytest.approx(130 + t / 100)
        tau_fs = float(at["autocorrelation_time"]) * 20.0
        assert float(at["autocorrelation_time_fs"]) == pytest.approx(tau_fs, rel=1e-12)


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
def test_sampling_errors_equal_those_of_the_explicit_series(
    trace: Trace, runs: dict[float, list[Sample]], method: str
) -> None:
    result = analyze(trace, readout(), error_method=method, reference="raw")
    for i, (t, frames) in enumerate(runs.items()):
        at = result.isel(temperature=i)
        spectra = np.array([readout().dos(s.features) for s in frames])
        w = np.array([s.weight for s in frames])
        channels = standard_error(spectra, w, method)
        np.testing.assert_allclose(at["dos_sampling_err"], channels.error, rtol=1e-4, atol=1e-9)
        h = kernels(E, w @ spectra / w.sum(), N_ELECTRONS, t)
        for name in LINEAR:
            assert float(at[f"{name}_sampling_err"]) == pytest.approx(
                float(standard_error(spectra @ h[name], w, method).error), rel=1e-6
            ), name


def test_kernels_are_derivatives() -> None:
    dos, direction = readout().dos(samples(1, 0, 300.0)[0].features), np.cos(E) * (E > -10)
    h, found = 1e-5, kernels(E, dos, N_ELECTRONS, 900.0)
    plus, minus = (derive(E, dos + s * h * direction, N_ELECTRONS, 900.0, n_atoms=N_ATOMS) for s in (1, -1))
    for name in LINEAR:
        # T dS and dU are exact to rounding of the difference.
        assert found[name] @ direction == pytest.approx((plus[name] - minus[name]) / (2 * h), rel=1e-4), name


def test_sampling_error_is_the_spread_over_independent_runs(tmp_path: Path) -> None:
    names = ("heat_capacity", "chemical_potential", "entropy")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    channel_errors = []
    repeats = 50
    runs = [samples(300, seed=500 + k, temperature_K=1500.0, replica=k) for k in range(repeats)]
    trace = write(tmp_path / "runs.zarr", [replace(s, weight=1.0) for run in runs for s in run])
    for k in range(repeats):
        at = analyze(trace, readout(members=0), replicas=[k], reference="raw").isel(temperature=0)
        for name in names:
            found[name].append((float(at[name]), float(at[f"{name}_sampling_err"])))
        channel_errors.append(at["dos_sampling_err"].values)
    for name, pairs in found.items():
        values, errors = np.array(pairs).T
        # 50 repeats tell the spread to 10 %.
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25), name
    # The error of every channel in closed form: the features are independent AR(1) processes.
    t = np.arange(1, 300)
    feature = 0.4 * np.sqrt((1 + 2 * np.sum((1 - t / 300) * 0.8**t)) / 300)
    exact = feature * np.linalg.norm([readout().dos(np.eye(5)[i]) for i in range(3)], axis=0)
    told = np.mean(channel_errors, axis=0)
    moving = exact > 1e-6
    np.testing.assert_allclose(told[moving], exact[moving], rtol=0.2)


def test_traces_are_joined_and_their_series_kept_apart(tmp_path: Path) -> None:
    parts = [samples(80, seed=s, temperature_K=700.0) for s in (1, 2)]
    paths = [write(tmp_path / f"{i}.zarr", part).path for i, part in enumerate(parts)]
    both = analyze(paths, readout(), reference="raw").isel(temperature=0)
    np.testing.assert_allclose(both["dos"], mean_members(parts[0] + parts[1]).mean(axis=0), rtol=1e-9, atol=1e-12)
    spectra = np.array([readout().dos(s.features) for s in parts[0] + parts[1]])
    weights = np.array([s.weight for s in parts[0] + parts[1]])
    expected = standard_error(spectra, weights, segments=np.repeat([0, 1], 80)).error
    np.testing.assert_allclose(both["dos_sampling_err"], expected, rtol=1e-4, atol=1e-9)
    with pytest.raises(TraceError, match="the same trace is given twice"):
        analyze([paths[0], paths[0]], readout())


def test_hundreds_of_short_traces(tmp_path: Path) -> None:
    """More series than blocks are kept of a temperature, each of one block: the averages are those of all frames."""
    paths, frames = [tmp_path / f"{i:03d}.zarr" for i in range(260)], []
    for i, path in enumerate(paths):
        frames += samples(2, seed=i, temperature_K=300.0)
        write(path, frames[-2:])
    result = analyze(paths, readout(), reference="raw").isel(temperature=0)
    weights, features = np.array([s.weight for s in frames]), np.array([s.features for s in frames], dtype=float)
    np.testing.assert_allclose(result["dos"], readout().dos(weights @ features / weights.sum()), rtol=1e-10, atol=1e-12)
    assert int(result["n_samples"]) == 520 and not any("drift" in note for note in result.attrs.get("notes", []))
    assert analyze(paths, readout(), burn_in="auto").attrs["burn_in_found"] == ["no drift"]


def test_long_series_are_blocked_without_changing_the_answer(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = analyze(trace, readout(), reference="raw")
    monkeypatch.setattr("petdos_md.analysis.frames.MAX_BLOCKS", 40)
    coarse = analyze(trace, readout(), reference="raw")
    np.testing.assert_allclose(coarse["dos"], fine["dos"], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(coarse["heat_capacity_sampling_err"], fine["heat_capacity_sampling_err"], rtol=1e-10)
    ratio = (coarse["dos_sampling_err"] / fine["dos_sampling_err"]).values[:, (E > -5) & (E < 4)]
    assert np.median(np.abs(ratio - 1)) < 0.2


def test_burn_in_replicas_and_temperatures_choose_frames(trace: Trace, runs: dict[float, list[Sample]]) -> None:
    late = analyze(trace, readout(), burn_in=500, temperatures_K=[1200], reference="raw").isel(temperature=0)
    assert float(late["temperature"]) == 1200.0 and int(late["n_samples"]) == 70
    np.testing.assert_allclose(late["dos"], mean_members(runs[1200.0][50:]).mean(axis=0), rtol=1e-9, atol=1e-12)
    first = analyze(trace, readout(), replicas=[0], reference="raw")
    assert first["temperature"].values.tolist() == [400.0]
    with pytest.raises(TraceError, match="no samples at 500 K, there are some at: 400, 1200 K"):
        analyze(trace, readout(), temperatures_K=[500])
    with pytest.raises(TraceError, match="no replica 7, there are: 0, 1"):
        analyze(trace, readout(), replicas=[7])
    with pytest.raises(NoSamplesError, match="no samples at 400 K are left after a burn-in of 99999 steps"):
        analyze(trace, readout(), burn_in=99999)


def test_fermi_reference_changes_spectra_and_nothing_else(trace: Trace) -> None:
    raw, fermi = analyze(trace, readout(), reference="raw"), analyze(trace, readout(), reference="fermi")
    assert (raw.attrs["energy_reference"], fermi.attrs["energy_reference"]) == ("raw", "fermi")
    assert list(fermi.data_vars) == list(raw.data_vars)
    for name in set(raw.data_vars) - {"dos", "dos_model_std", "dos_sampling_err"}:
        np.testing.assert_array_equal(fermi[name], raw[name])
    # Without an ensemble the axis is shifted, by the Fermi level of each temperature.
    raw, fermi = (analyze(trace, readout(), members=False, reference=zero) for zero in ("raw", "fermi"))
    for i in range(2):
        shifted = fermi["energy"].values + float(raw["fermi_level"][i])
        np.testing.assert_allclose(fermi["dos"].values[i], np.interp(shifted, E, raw["dos"].values[i]), atol=1e-12)


def test_identity_transform_equals_the_linear_path(trace: Trace) -> None:
    linear = analyze(trace, readout(), reference="raw")
    slow = analyze(trace, readout(), transform=lambda dos, frames: dos, reference="raw")
    assert list(slow.data_vars) == list(linear.data_vars)
    for name in linear.data_vars:
        np.testing.assert_allclose(slow[name], linear[name], rtol=1e-6, atol=1e-11, err_msg=str(name))


def direct_trace(path: Path, spectra: np.ndarray, n_electrons: float) -> tuple[Trace, Readout]:
    """A run of a model that gives the DOS itself, whatever it is."""
    grid = EnergyGrid(-10.0, 0.05, spectra.shape[1])
    model = ModelInfo("direct", FINGERPRINT, grid, "direct", grid.n, 0, {}, "")
    frames = [
        Sample(dos.astype(np.float32), model, 1, n_electrons, 20.0, step=i, temperature_K=1000.0)
        for i, dos in enumerate(spectra)
    ]
    return write(path, frames), Readout.for_direct(grid, None, 0, FINGERPRINT)


def test_alignment_of_frames_undoes_rigid_shifts(tmp_path: Path) -> None:
    """Frames that differ by a shift of the energy axis only: aligned, their average is the DOS of any of them."""
    energies = -10.0 + 0.05 * np.arange(401)

    def spectrum(shift: float) -> np.ndarray:
        return np.interp(
            energies - shift, [-10.0, -8.0, -1.0, 2.0, 6.0, 9.0], [0.0, 0.0, 2.0, 1.0, 3.0, 0.0], left=0, right=0
        )

    shifts = 0.05 * np.random.default_rng(0).integers(-8, 9, size=40)  # of whole grid steps
    trace, direct = direct_trace(tmp_path / "shifted.zarr", np.array([spectrum(s) for s in shifts]), 9.0)
    aligned = analyze(trace, direct, reference="fermi", align="frames").isel(temperature=0)
    level = float(thermo.fermi_level(energies, spectrum(0.0), 9.0))
    inside = np.abs(aligned["energy"].values) < 5
    expected = np.interp(aligned["energy"].values + level, energies, spectrum(0.0))
    np.testing.assert_allclose(aligned["dos"].values[inside], expected[inside], atol=2e-6)
    assert float(aligned["heat_capacity"]) == pytest.approx(
        float(thermo.heat_capacity(energies, spectrum(0.0), 9.0, 1000.0)), rel=1e-4
    )
    # Averaged as they are, the kinks are smeared.
    smeared = analyze(trace, direct, reference="fermi").isel(temperature=0)
    gap = np.abs(smeared["dos"].values - np.interp(smeared["energy"].values + level, energies, spectrum(0.0))).max()
    assert gap > 0.05
    with pytest.raises(ValueError, match="give reference='fermi'"):
        analyze(trace, direct, align="frames", reference="raw")


def test_electronic_temperatures_share_one_set_of_frames(trace: Trace, runs: dict[float, list[Sample]]) -> None:
    ladder = [300.0, 3000.0, 10000.0]
    result = analyze(trace, readout(), temperatures_K=[400], electronic_temperatures_K=ladder, reference="raw")
    members = mean_members(runs[400.0])
    for i, t in enumerate(ladder):
        expected = thermo.heat_capacity(E, members, N_ELECTRONS, t)
        assert float(result["heat_capacity_member_mean"][i]) == pytest.approx(expected.mean(), rel=1e-9)
        expected = thermo.heat_capacity(E, members.mean(axis=0), N_ELECTRONS, t)
        assert float(result["heat_capacity"][i]) == pytest.approx(float(expected), rel=1e-9)
        assert float(result["ensemble_temperature"][i]) == pytest.approx(400.0)
    own = analyze(trace, readout(), temperatures_K=[400], electronic_temperatures_K=[400.0], reference="raw")
    whole = analyze(trace, readout(), temperatures_K=[400], reference="raw")
    for name in LINEAR:
        np.testing.assert_allclose(own[f"{name}_sampling_err"], whole[f"{name}_sampling_err"], rtol=1e-9)
    with pytest.raises(ValueError, match="need frames of one ensemble, got 400, 1200 K"):
        analyze(trace, readout(), electronic_temperatures_K=ladder)


def test_without_an_ensemble_model_errors_are_nan_and_say_why(tmp_path: Path) -> None:
    frames = samples(60, seed=3, temperature_K=800.0)
    result = analyze(write(tmp_path / "a.zarr", frames), readout(members=0), reference="raw")
    assert np.isnan(result["dos_model_std"]).all() and np.isnan(result["heat_capacity_model_std"]).all()
    assert "no ensemble" in result.attrs["model_error"] and any("no ensemble" in n for n in result.attrs["notes"])
    assert "heat_capacity_member_mean" not in result
    skipped = analyze(write(tmp_path / "b.zarr", frames), readout(), members=False, reference="raw")
    whole = analyze(tmp_path / "b.zarr", readout(), reference="raw")
    for name in ("heat_capacity", "chemical_potential", "gap", "dos"):  # an ensemble adds errors and changes no value
        np.testing.assert_allclose(whole[name], result[name], rtol=1e-12)
    assert "members=False" in skipped.attrs["model_error"] and np.isnan(skipped["heat_capacity_model_std"]).all()


def test_short_and_refused_frames_are_noted(tmp_path: Path) -> None:
    frames = samples(5, seed=3, temperature_K=800.0)
    with Trace.open(tmp_path / "short.zarr", model=frames[0].model, fsync=False) as trace:
        for sample in frames:
            trace.append(sample)
        trace.skip("the model returned NaN")
    result = analyze(tmp_path / "short.zarr", readout())
    assert np.isnan(result["heat_capacity_sampling_err"]).all() and np.isnan(result["dos_sampling_err"]).all()
    assert int(result["n_skipped"]) == 1
    notes = "\n".join(result.attrs["notes"])
    assert "800 K: no sampling error, 5 frames" in notes and "the model returned NaN (1)" in notes


def test_results_survive_a_file(trace: Trace, tmp_path: Path) -> None:
    result = analyze(trace, readout(), reference="raw")
    for name, variable in result.data_vars.items():
        assert "units" in variable.attrs and "long_name" in variable.attrs, name
    result.to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        xr.testing.assert_equal(again.load(), result)
        assert again.attrs["model_fingerprint"] == FINGERPRINT


def test_a_trace_finds_its_own_model(model: DOSModel, aluminium: Atoms, tmp_path: Path) -> None:
    """A real network, exported and separated; the DOS of its frames averaged by hand."""
    frames = []
    with Trace.open(tmp_path / "real.zarr", model=model, fsync=False) as trace:
        for step in range(4):
            frames.append(aluminium.copy())
            frames[-1].rattle(0.1, seed=step)
            trace.append(model.evaluate(frames[-1]), step=step, temperature_K=500.0)
    spectra = np.array([model.dos_members(atoms) for atoms in frames])
    energies, mean, filled = model.grid.energies, spectra.mean(axis=0), 5.0  # random weights hold few electrons
    expected = thermo.chemical_potential(energies, mean.mean(axis=0), filled, 500.0)
    result = analyze(tmp_path / "real.zarr", n_electrons=filled, reference="raw").isel(temperature=0)
    np.testing.assert_allclose(result["dos"], mean.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert float(result["chemical_potential"]) == pytest.approx(float(expected), abs=1e-3)
    named = analyze(tmp_path / "real.zarr", model.path, n_electrons=filled, reference="raw").isel(temperature=0)
    xr.testing.assert_equal(named, result)


def test_wrong_models_are_refused(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"made by 'synthetic' .* got a model with fingerprint 000000000000"):
        analyze(trace, readout(fingerprint="0" * 64))
    with pytest.raises(ModelError, match=r"was never stored in a file; give model=PATH"):
        analyze(trace)
    moved = samples(9, seed=1, temperature_K=300.0, model=info(path="/nowhere/model.pt"))
    with pytest.raises(ModelError, match=r"cannot be loaded .* give model=PATH"):
        analyze(write(tmp_path / "moved.zarr", moved))
    other = samples(9, seed=1, temperature_K=300.0, model=info(fingerprint="1" * 64))
    with pytest.raises(TraceError, match="analyze the two apart"):
        analyze([trace, write(tmp_path / "other.zarr", other)], readout())


def test_structures_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    frames = samples(20, seed=1, temperature_K=300.0)
    mixed = [replace(s, n_electrons=24.0 + i % 2) for i, s in enumerate(frames)]
    with pytest.raises(StructureError, match="frames at 300 K have 24 to 25 electrons"):
        analyze(write(tmp_path / "mixed.zarr", mixed), readout())
    unknown = write(tmp_path / "unknown.zarr", [replace(s, n_electrons=float("nan")) for s in frames])
    with pytest.raises(StructureError, match=r"is not known; give electrons=\{'Al': 3, \.\.\.\} .* or n_electrons="):
        analyze(unknown, readout())
    given = analyze(unknown, readout(), n_electrons=24.0)
    known = analyze(write(tmp_path / "known.zarr", frames), readout())
    np.testing.assert_array_equal(given["heat_capacity"], known["heat_capacity"])


def test_no_samples_and_bad_choices(tmp_path: Path, trace: Trace) -> None:
    with Trace.open(tmp_path / "empty.zarr", model=info(), fsync=False):
        pass
    with pytest.raises(NoSamplesError, match="no samples yet; run some steps"):
        analyze(tmp_path / "empty.zarr", readout())
    for wrong, message in (
        ({"reference": "vbm"}, "reference='vbm' given, expected one of raw, fermi"),
        ({"error_method": "jackknife"}, "error_method='jackknife' given"),
        ({"burn_in": -1}, r"burn_in=-1 \(--burn-in\) given"),
        ({"n_electrons": 0.0}, "n_electrons=0.0 given, expected a positive number"),
    ):
        with pytest.raises(ValueError, match=message):
            analyze(trace, readout(), **wrong)  # type: ignore[arg-type]
