"""Validation against explicit loops; calibration against errors drawn from a known distribution."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from helpers.models import N_CHANNELS, rattled_aluminium
from helpers.structures import structures
from scipy.integrate import lebedev_rule

from petdos_md.analysis.analyze import analyze
from petdos_md.base.errors import ChemicalPotentialError, ModelError, SettingError
from petdos_md.cli.main import main
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo
from petdos_md.physics.networks import DOSNetwork, Network, network_path
from petdos_md.results.plot import plot_calibration, plot_errors
from petdos_md.traces.trace import Trace
from petdos_md.validation.calibrate import (
    autocorrelation,
    calibrate_model,
    correlation_root,
    draw_members,
    fit_covariance,
)
from petdos_md.validation.metrics import align, chance_interval, rotated, rotations, symmetry_error
from petdos_md.validation.references import note_on_electrons, read_references
from petdos_md.validation.validate import compare, format_validation, validate_model

SHIFT = 7
LIMIT = 330


@pytest.fixture(scope="module")
def dataset(metal: DOSModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """References are predictions with smooth errors, on an axis of their own, undefined above a limit."""
    rng = np.random.default_rng(0)
    e = metal.grid.energies
    written = structures(10)
    for atoms in written:
        wave = sum(rng.normal() * np.exp(-((e - c) ** 2) / 2) for c in (-9.0, -7.0, -5.0, -3.0))
        dos = np.maximum(metal.dos(atoms) + 0.15 * wave * (e > -10), 0.0)
        target = np.full(N_CHANNELS, np.nan)
        target[: N_CHANNELS - SHIFT] = dos[SHIFT:]
        target[LIMIT:] = np.nan
        atoms.info["dos"] = target
    path = tmp_path_factory.mktemp("dataset") / "data.xyz.xz"
    ase.io.write(path, written, format="extxyz")
    return path


def test_comparison_equals_loops(metal: DOSModel, dataset: Path) -> None:
    reference = read_references(dataset, metal, where="index%10=3")[0]
    found = compare(metal, reference, temperatures_K=(1000.0,))
    atoms, e, step = reference.atoms, metal.grid.energies, metal.grid.step
    dos, members = metal.dos(atoms), metal.dos_members(atoms)
    # Eqs. 8 and 9: the best shift by brute force
    best, best_shift = np.inf, 0
    for shift in range(-40, 41):
        defined = np.flatnonzero(np.isfinite(reference.target))
        at = defined + shift
        inside = (at >= 0) & (at < len(dos))
        moved = np.where(inside, dos[np.clip(at, 0, len(dos) - 1)], 0.0)
        below = (dos[:shift] ** 2).sum() if shift > 0 else 0.0
        error = step * (((moved - reference.target[defined]) ** 2).sum() + below)
        best, best_shift = min((best, best_shift), (error, shift))
    assert found.error == pytest.approx(np.sqrt(best) / 12, rel=1e-9)
    assert abs(found.shift_eV / step - best_shift) <= 0.5
    # Eq. 10: rotations one by one
    turned = []
    for x, y, z in lebedev_rule(9)[0].T:
        copy = atoms.copy()
        copy.rotate(np.degrees(np.arccos(z)), "y", rotate_cell=True)
        copy.rotate(np.degrees(np.arctan2(y, x)), "z", rotate_cell=True)
        turned.append(metal.dos(copy))
    assert len(turned) == 38
    variance = np.mean((np.array(turned) - np.mean(turned, axis=0)) ** 2, axis=0)
    assert found.symmetry == pytest.approx(np.sqrt(variance.sum() * step) / 12, rel=2e-3)
    # calibration: each member through the whole derivation
    target = np.full(N_CHANNELS, np.nan)
    shift = align(reference.target, dos, step).shift
    if shift >= 0:
        target[shift:], target[:shift] = reference.target[: N_CHANNELS - shift], 0.0
    else:
        target[:shift] = reference.target[-shift:]
    defined = np.isfinite(target)
    np.testing.assert_allclose(
        found.z[defined],
        (target[defined] - members[:, defined].mean(axis=0)) / members[:, defined].std(axis=0, ddof=1),
        rtol=1e-9,
    )
    heat = [
        float(thermo.heat_capacity(e[defined], g[defined], 12.0, 1000.0)) / 8.617333262145179e-5 / 4
        for g in (target, *members)
    ]
    assert found.integrals["heat_capacity_1000K"] == pytest.approx(
        (heat[0], np.mean(heat[1:]), np.std(heat[1:], ddof=1)), rel=1e-6
    )
    levels = [float(thermo.fermi_level(e[defined], g[defined], 12.0)) for g in (target, *members)]
    at = np.mean(levels[1:])
    counts = [np.interp(at, e, np.r_[0, np.cumsum((g[1:] + g[:-1]) / 2) * step]) / 4 for g in members]
    assert found.integrals["states_below_fermi"][1:] == pytest.approx(
        (np.mean(counts), np.std(counts, ddof=1)), rel=1e-6
    )
    # levels are compared after the best shift, refined between channels
    assert found.integrals["fermi_level"][0] - levels[0] == pytest.approx(found.shift_eV - shift * step, abs=1e-12)
    assert abs(found.integrals["fermi_level"][0] - levels[0]) <= step / 2


def test_shift_between_channels() -> None:
    e = np.arange(-10, 10, 0.05)
    target = np.exp(-(e**2))
    for true in (0.0, 0.013, -0.021, 0.31):
        found = align(target, np.exp(-((e - true) ** 2)), 0.05)
        assert found.refined * 0.05 == pytest.approx(true, abs=5e-4)
        assert abs(found.refined - found.shift) <= 0.5


def test_rotations_cover_the_sphere() -> None:
    every = np.array(rotations())
    assert every.shape == (38, 3, 3)
    np.testing.assert_allclose(every @ every.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (38, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(every), 1.0)
    np.testing.assert_allclose(every[:, :, 2].mean(axis=0), 0.0, atol=1e-12)
    atoms = structures(1)[0]
    turned = rotated(atoms, every[17])
    np.testing.assert_allclose(turned.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-9)
    assert symmetry_error(np.ones((38, 5)), 3.0, 0.05) == 0.0


def test_summary_of_subsets(metal: DOSModel, dataset: Path) -> None:
    references = read_references(dataset, metal)
    assert sorted({r.subset for r in references}) == ["cold-Al", "hot-Al"]
    result = validate_model(metal, references, temperatures_K=(500.0,), symmetry=False)
    for subset in (None, "cold-Al"):
        chosen = [c for c in result.comparisons if subset in (None, c.subset)]
        s = result.summary(subset)
        assert s["structures"] == len(chosen)
        assert s["dos_rmse"] == pytest.approx(np.sqrt(np.mean([c.error**2 for c in chosen])), rel=1e-12)
        rows = np.array([c.integrals["fermi_level"] for c in chosen])
        z = (rows[:, 0] - rows[:, 1]) / rows[:, 2]
        assert s["integrals"]["fermi_level"]["z_spread"] == pytest.approx(np.sqrt(np.mean(z**2)), rel=1e-12)
        assert s["integrals"]["fermi_level"]["within_1"] == pytest.approx(np.mean(np.abs(z) <= 1))
        spread = result.channel_spread(subset)
        zs = np.array([c.z for c in chosen])
        assert spread[200] == pytest.approx(np.sqrt(np.mean(zs[:, 200] ** 2)), rel=1e-12)
        assert np.isnan(spread[-1])  # no target is defined there
        known = spread[np.isfinite(spread)]
        assert s["channels_wanted"] == np.mean((known >= 0.7) & (known <= 1.4))
        assert s["channel_z_chance_99"] == [float(x) for x in chance_interval(len(chosen), result.n_members)]
        inside = []
        for channel in np.flatnonzero(np.isfinite(spread)):
            low, high = chance_interval(int(np.isfinite(zs[:, channel]).sum()), result.n_members)
            inside.append(low <= spread[channel] <= high)
        assert s["channels_within_chance"] == np.mean(inside)
    text = format_validation(result)
    single = copy.copy(metal)
    single.n_members = 0  # a model without an ensemble has errors, but no z-scores
    without = validate_model(single, references, temperatures_K=(500.0,), symmetry=False)
    assert without.summary()["dos_rmse"] == pytest.approx(result.summary()["dos_rmse"], rel=1e-12)
    assert np.isnan(without.summary()["channel_z_spread"]) and np.isnan(without.integral("fermi_level")["z_spread"])
    assert "| - |" in format_validation(without)
    assert not result.is_graded and result.summary()["n_far_outside"] is None and "rade" not in text
    assert f"{result.summary()['dos_rmse']:.4f}" in text and "heat capacity 500K" in text and "| hot-Al | 5 |" in text


def test_covariance_is_recovered_and_independent_channels_fail() -> None:
    """Residuals drawn from a known distribution: members that are fitted to some of them describe the others, in every channel
    and in integrals. Members with the same size in every channel but drawn one by one fail in integrals."""
    rng = np.random.default_rng(3)
    n_channels, n_features, step = 240, 12, 0.05
    distance = np.arange(n_channels) * step
    truth = correlation_root(np.exp(-((distance / 0.5) ** 2)) * (1 - 0.3 * (distance / 0.5) ** 2))
    scale = 0.5 + np.linspace(0, 1, n_channels)
    mixing = rng.normal(size=(n_features, n_features)) * np.linspace(1, 0.1, n_features)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        features = rng.normal(size=(n, n_features)) @ mixing
        size = np.sqrt(np.einsum("ni,ij,nj->n", features, inverse, features))
        return features, size[:, None] * scale * (rng.normal(size=(n, truth.shape[1])) @ truth.T)

    seen = rng.normal(size=(300, n_features)) @ mixing
    inverse = np.linalg.inv(seen.T @ seen)
    features, residuals = draw(80)
    residuals[:20, 200:] = np.nan
    fit = fit_covariance(features, residuals, np.ones(80), step, seen)
    assert fit.regularizer < 1e-2
    members = draw_members(fit, 200, seed=1).numpy().astype(float)
    assert np.abs(members.mean(axis=0)).max() < 1e-6
    independent = rng.permuted(members.transpose(1, 2, 0).copy(), axis=-1).transpose(2, 0, 1)
    for i in range(n_channels):  # the same permutation for all features of a channel keeps its spread
        independent[:, i] = members[rng.permutation(200), i]
    fresh, errors = draw(400)
    spreads = {}
    for name, m in (("correlated", members), ("independent", independent)):
        predicted = np.einsum("mcf,nf->nmc", m, fresh)
        channel = errors / predicted.std(axis=1, ddof=1)
        integral = errors.cumsum(axis=1)[:, 150] / predicted.cumsum(axis=2)[:, :, 150].std(axis=1, ddof=1)
        spreads[name] = np.median(np.sqrt((channel**2).mean(axis=0))), np.sqrt((integral**2).mean())
    assert 0.85 < spreads["correlated"][0] < 1.15 and 0.85 < spreads["independent"][0] < 1.15
    assert 0.75 < spreads["correlated"][1] < 1.35
    assert spreads["independent"][1] > 2.0


def test_autocorrelation_against_a_loop() -> None:
    x = np.random.default_rng(5).normal(size=(6, 40))
    x[2, 30:] = np.nan
    found = autocorrelation(x)
    for lag in (0, 1, 7, 25):
        products = x[:, : 40 - lag] * x[:, lag:]
        expected = np.nanmean(products) / np.nanmean(x**2)
        assert found[lag] == pytest.approx(expected, rel=1e-9)


def test_calibrated_model_keeps_the_mean(
    metal: DOSModel, metal_path: Path, dataset: Path, tmp_path: Path, capsys
) -> None:
    copy = tmp_path / "metal.pt"
    for path in (metal_path, metal_path.with_name("metal.readout.safetensors")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    network = Network(DOSNetwork(metal.grid.n), metal.grid, "gap", model=metal.info.fingerprint)
    network.save(network_path(copy, "gap"))
    output = tmp_path / "calibrated.pt"
    arguments = ["calibrate", str(copy), str(dataset), "--where", "index%2=0", "-o", str(output), "--members", "12"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "12 members from 5 structures" in shown and "known to 32 %, from 5 structures" in shown  # 1 / sqrt(2 n)
    assert "--features DATASET" in shown
    new = DOSModel.load(output, "cpu")
    assert new.n_members == 12 and new.info.fingerprint != metal.info.fingerprint
    assert (new.readout.mean_weights == metal.readout.mean_weights).all()
    for atoms in structures(3):
        np.testing.assert_array_equal(new.evaluate(atoms).features, metal.evaluate(atoms).features)
        np.testing.assert_allclose(new.dos(atoms), metal.dos(atoms), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(new.dos_members(atoms).mean(axis=0), new.dos(atoms), rtol=1e-5, atol=1e-6)
    # a trace of the old model is analyzed with the new one: same averages, other errors
    with Trace.open(tmp_path / "run.zarr", model=metal) as trace:
        for step, atoms in enumerate(structures(8)):
            trace.append(metal.evaluate(atoms), step=step, temperature_K=500.0)
    old_result, new_result = (analyze(tmp_path / "run.zarr", m, reference="raw") for m in (copy, output))
    np.testing.assert_allclose(new_result["dos"], old_result["dos"], rtol=1e-12)
    assert float(new_result["heat_capacity_model_std"][0]) != float(old_result["heat_capacity_model_std"][0])
    # z-scores of the calibration split come out near one (there were 5 random members before)
    result = validate_model(new, read_references(dataset, new, where="index%2=0"), symmetry=False).summary()
    assert 0.5 < result["channel_z_spread"] < 1.5
    # its networks came along and a second calibration knows both ancestors
    assert network_path(output, "gap").is_file()
    more = [*arguments[:6], str(tmp_path / "again.pt"), "--features", str(dataset), "--features-where", "index%2=1"]
    more[1] = str(output)
    assert main(more) == 0
    assert "--features" not in capsys.readouterr().out
    assert DOSModel.load(tmp_path / "again.pt", "cpu").readout.belongs_to(metal.info.fingerprint)


def test_command_writes_what_it_prints(guarded: DOSModel, dataset: Path, tmp_path: Path, capsys) -> None:
    """With the grades of a model that knows its training set: by the inverse of the covariance, with each structure left out."""
    out = tmp_path / "out"
    given = ["validate", guarded.info.path, str(dataset), "-o", str(out), "--no-symmetry", "--temperature", "800"]
    assert main(given) == 0
    told = capsys.readouterr().out
    assert (out / "validation.md").read_text().strip() in told
    whole = json.loads((out / "validation.json").read_text())
    assert whole["all"]["symmetry_error"] is None and set(whole["subsets"]) == {"cold-Al", "hot-Al"}
    table = pd.read_csv(out / "structures.csv")
    assert len(table) == 10 and "heat_capacity_800K_model_std (k_B/atom)" in table
    assert {p.name for p in out.iterdir()} >= {"errors.png", "calibration.png"}

    def per_atom(atoms: Atoms) -> np.ndarray:
        return guarded.evaluate(atoms).features[:-2].astype(float) / len(atoms)

    def variance(x: np.ndarray, rows: np.ndarray) -> float:
        return float(x @ np.linalg.solve(rows.T @ rows + 1e-3 * np.eye(len(x)), x))

    seen = np.array([per_atom(rattled_aluminium(seed)) for seed in range(30)])
    unit = np.quantile([variance(x, np.delete(seen, k, axis=0)) for k, x in enumerate(seen)], 0.99)
    grades = np.array([variance(per_atom(atoms), seen) / unit for atoms in ase.io.read(dataset, ":")])
    np.testing.assert_allclose(table["extrapolation_grade"], grades, rtol=1e-3)
    far = int((grades > 2).sum())
    assert 0 < far < 10 and f"; {far} of 10 structures are far outside that set (grade above 2)" in told
    for subset, found in (("all", whole["all"]), *whole["subsets"].items()):
        own = grades[(table["subset"] == subset) | (subset == "all")]
        numbers = found["extrapolation_grade_median"], found["extrapolation_grade_max"], found["n_far_outside"]
        assert numbers == pytest.approx((np.median(own), own.max(), (own > 2).sum()), rel=1e-3)
        assert f"| {found['extrapolation_grade_max']:.2g} |\n" in told


def test_electrons_that_predictions_do_not_hold(metal: DOSModel, dataset: Path) -> None:
    """As of a model that is hardly trained: such structures count in no integral, and are counted. A reference must hold its own."""
    references = read_references(dataset, metal)[:3]
    holds = np.trapezoid(np.nan_to_num(references[1].target), dx=metal.grid.step)
    odd = replace(references[1], target=4 * references[1].target, n_electrons=2 * float(holds))
    result = validate_model(metal, [references[0], odd, references[2]], symmetry=False)
    assert result.n_without_levels == 1
    assert all(np.isnan(values).all() for values in result.comparisons[1].integrals.values())
    good = validate_model(metal, [references[0], references[2]], symmetry=False)
    assert result.summary()["integrals"] == good.summary()["integrals"]
    assert result.summary()["dos_worst"] > good.summary()["dos_worst"]
    assert "1 of 3 structures are missing from the integrals" in format_validation(result)
    assert "missing" not in format_validation(good)
    plot_calibration(result), plot_errors(result)
    none = validate_model(metal, [odd], symmetry=False)
    assert "| fermi level | eV | - | - | - | - | - | - |" in format_validation(none)
    plot_calibration(none)
    with pytest.raises(ChemicalPotentialError, match=r"the reference DOS of .* holds [\d.]{2,7} electrons when full"):
        validate_model(metal, [replace(odd, target=references[1].target)], symmetry=False)


def test_a_number_of_electrons_that_is_not_that_of_the_model(metal: DOSModel, dataset: Path) -> None:
    references = read_references(dataset, metal)
    assert note_on_electrons(references, metal) == ""
    references[3] = replace(references[3], n_electrons=metal.n_electrons(references[3].atoms) + 10)
    told = note_on_electrons(references, metal)
    formula, own = references[3].atoms.symbols, metal.n_electrons(references[3].atoms)
    assert told.startswith("note: 1 of 10 structures") and f"({formula}) {own + 10:g} in place of {own:g}" in told


def test_bad_input(metal: DOSModel, metal_path: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no structures with index%10=17: the split is empty"):
        read_references(dataset, metal, where="index%10=17")
    with pytest.raises(
        SettingError, match=r"no structures with index=x among 10, whose index is 0, 1, 2, 3, 4, 5, \.\.\.:"
    ):
        read_references(dataset, metal, where="index=x")
    with pytest.raises(SettingError, match="got the condition 'index', expected key=value"):
        read_references(dataset, metal, where="index")
    with pytest.raises(SettingError, match="no such data set"):
        read_references(tmp_path / "none.xyz", metal)
    atoms = structures(1)[0]

    def written(**info: object) -> Path:
        atoms.info = {"tag": "a", **info}
        ase.io.write(tmp_path / "x.xyz", atoms, format="extxyz")
        return tmp_path / "x.xyz"

    with pytest.raises(SettingError, match="structure 0 has eigenvalues but no kweights"):
        read_references(written(eigenvalues=np.array([[-8.0, -7.0], [-8.0, -6.0]])), metal)
    hartree = {"kweights": np.array([0.5, 0.5]), "n_electrons": 2}
    with pytest.raises(SettingError, match=r"structure 0: from the lowest .* it is only 0.8 eV, expected 2 eV or more"):
        read_references(written(eigenvalues=np.array([[-0.4, 0.2], [-0.3, 0.4]]), **hartree), metal)
    with pytest.raises(SettingError, match="structure 0: 4 electrons fill all 2 bands; compute more of them"):
        read_references(written(eigenvalues=np.array([[-4.0, 2], [-3, 4]]), **hartree | {"n_electrons": 4}), metal)
    with pytest.raises(SettingError, match="structure 0 has neither dos nor eigenvalues"):
        read_references(written(), metal)
    with pytest.raises(SettingError, match=r"DOS of shape \(3,\), the model has 400 energies"):
        read_references(written(dos=np.zeros(3)), metal)
    with pytest.raises(SettingError, match="there are no references"):
        validate_model(metal, [])
    with pytest.raises(SettingError, match="got 1 references and 8 members, expected at least 4"):
        calibrate_model(metal_path, read_references(dataset, metal, where="index=1"), tmp_path / "a.pt", n_members=8)
    with pytest.raises(ModelError, match=r"must end in \.pt"):
        calibrate_model(metal_path, read_references(dataset, metal), tmp_path / "a")
    with pytest.raises(SettingError, match="is the model itself"):
        calibrate_model(metal_path, read_references(dataset, metal), metal_path)
