"""Refined last layers against explicit least squares and refits without a structure; members against errors of known distribution."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import scipy.stats
from helpers.models import N_CHANNELS, rattled_aluminium
from helpers.structures import structures

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.inputs import find_networks
from petdos_md.base.errors import ModelError, SettingError
from petdos_md.cli.main import main
from petdos_md.models.files import readout_path
from petdos_md.models.model import DOSModel
from petdos_md.models.readout import Readout
from petdos_md.physics.networks import DOSNetwork, Network, network_path
from petdos_md.results.methods import methods_paragraph
from petdos_md.results.provenance import provenance
from petdos_md.traces.trace import Trace
from petdos_md.validation.calibrate import calibrate_model
from petdos_md.validation.last_layer import RIDGES, LastLayerUpdate, choose_ridge, moved_members
from petdos_md.validation.metrics import align, dos_rmse, shifted_target
from petdos_md.validation.references import read_references
from petdos_md.validation.refine import refine_model

STEP = 0.3


def least_squares(x: np.ndarray, r: np.ndarray, precision: np.ndarray, weight: float) -> np.ndarray:
    """Of one channel, as an overdetermined system with a row for each structure and for each direction of the prior."""
    known = np.isfinite(r)
    system = np.concatenate([np.sqrt(weight) * x[known], np.linalg.cholesky(precision).T])
    wanted = np.concatenate([np.sqrt(weight) * r[known], np.zeros(len(precision))])
    return np.linalg.lstsq(system, wanted, rcond=None)[0]


def problem(n: int = 9, n_channels: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, residuals of which every third channel ends early and one is never defined, and a precision."""
    rng = np.random.default_rng(4)
    x, r, root = rng.normal(size=(n, 5)), rng.normal(size=(n, n_channels)), rng.normal(size=(5, 5))
    r[2:5, ::3], r[:, 5] = np.nan, np.nan
    return x, r, root @ root.T + 0.1 * np.eye(5)


def test_update_is_regularized_least_squares() -> None:
    x, r, precision = problem()
    for weight in (0.3, 4.0):
        update = LastLayerUpdate(x, np.isfinite(r), precision, weight)
        change, left, gain = update.change(r), update.left_out(r), update.noise_gain()
        for c in range(5):
            np.testing.assert_allclose(change[:, c], least_squares(x, r[:, c], precision, weight), rtol=1e-9)
            for i in range(len(x)):
                if np.isnan(r[i, c]):
                    assert np.isnan(left[i, c]) and np.isnan(gain[i, c])
                    continue
                others = np.where(np.arange(len(x)) == i, np.nan, r[:, c])
                assert left[i, c] == pytest.approx(r[i, c] - x[i] @ least_squares(x, others, precision, weight))
                units = [np.where(np.isfinite(others), np.eye(len(x))[j], np.nan) for j in range(len(x))]
                answers = [x[i] @ least_squares(x, u, precision, weight) for u in units]
                assert gain[i, c] == pytest.approx(np.sum(np.square(answers)))
    assert not change[:, 5].any()  # what no structure defines stays
    for weight, expected in ((0.0, np.zeros(5)), (1e8, np.linalg.lstsq(x, r[:, 1], rcond=None)[0])):
        found = LastLayerUpdate(x, np.isfinite(r), precision, weight).change(r)[:, 1]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_ridge_by_refits() -> None:
    x, r, precision = problem()
    r[:, :5] += x @ np.random.default_rng(5).normal(size=(5, 5))
    unit = np.mean(x**2)
    for prior in (precision, np.zeros((5, 5))):
        errors = {}
        for ridge in RIDGES if prior.any() else RIDGES[1:]:  # without a prior, something must hold the layer
            trial = prior + ridge * unit * np.eye(5)
            errors[ridge] = np.zeros(len(x))
            for c, i in np.argwhere(np.isfinite(r.T)):
                others = np.where(np.arange(len(x)) == i, np.nan, r[:, c])
                errors[ridge][i] += (r[i, c] - x[i] @ least_squares(x, others, trial, 1.0)) ** 2
        least = errors[min(errors, key=lambda ridge: errors[ridge].sum())]
        allowed = [k for k, e in errors.items() if np.mean(e - least) <= scipy.stats.sem(e - least)]
        assert choose_ridge(x, r, prior, 1.0, STEP) == pytest.approx(unit * max(allowed))


def test_members_spread_as_refined_models_err() -> None:
    """Last layers and noise of known distribution: on new structures members spread as much as their mean errs."""
    rng = np.random.default_rng(6)
    n_channels, n_features = 60, 8
    e = STEP * np.arange(n_channels)
    root = np.linalg.cholesky(np.exp(-((e[:, None] - e) ** 2) / 2) + 1e-6 * np.eye(n_channels))
    spread = np.diag(1.0 / np.arange(1, n_features + 1))  # the square root of M
    precision = np.linalg.inv(spread @ spread)

    def layers(n: int) -> np.ndarray:
        return root @ rng.normal(size=(n, n_channels, n_features)) @ spread

    for n in (12, 20, 60):
        errors, spreads = [], []
        for _ in range(25):
            x, fresh = rng.normal(size=(n, n_features)), rng.normal(size=(20, n_features))
            error, members = layers(1)[0], layers(100)
            noise = 0.7 * rng.normal(size=(n + 20, n_channels)) @ root.T
            r, wanted = x @ error.T + noise[:n], fresh @ error.T + noise[n:]
            update = LastLayerUpdate(x, np.isfinite(r), precision, 2.0)
            moved = moved_members(update, x, r, members - members.mean(axis=0), STEP)
            errors.append((wanted - fresh @ update.change(r)) ** 2)
            spreads.append(np.einsum("kcl,nl->knc", moved, fresh).var(axis=0, ddof=1))
        assert np.abs(moved.mean(axis=0)).max() < 1e-6
        found = np.sqrt(np.mean(errors) / np.mean(spreads))
        if n < 60:
            assert found == pytest.approx(1.0, abs=0.1)
        else:  # the rest is noise that no layer could follow, and not for members to make up
            assert 1.2 < found < 2.0
    # without weight nothing moves
    update = LastLayerUpdate(x, np.isfinite(r), precision, 0.0)
    still = moved_members(update, x, r, members - members.mean(axis=0), STEP)
    np.testing.assert_allclose(still, members - members.mean(axis=0), atol=1e-5)


@pytest.fixture(scope="module")
def new_data(guarded: DOSModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a last layer that is another one along a direction of the features predicts, on an axis of its own, up to a limit."""
    written = structures(16)
    rows = np.array([guarded.evaluate(a).features[:-2] / 4 for a in written], dtype=float)
    direction = np.linalg.svd(rows - rows.mean(axis=0))[2][0]
    bump = np.exp(-((guarded.grid.energies + 6.0) ** 2) / 2)
    for atoms, row in zip(written, rows, strict=True):
        dos = guarded.dos(atoms) + 4 * 0.2 * bump * ((row - rows[0]) @ direction) / np.ptp(rows @ direction)
        atoms.info["dos"] = np.full(N_CHANNELS, np.nan)
        atoms.info["dos"][: N_CHANNELS - 7] = np.where(np.arange(7, N_CHANNELS) < 330, dos[7:], np.nan)
    path = tmp_path_factory.mktemp("new") / "data.xyz.xz"
    ase.io.write(path, written, format="extxyz")
    return path


def test_refined_model(guarded: DOSModel, new_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = Path(guarded.path), tmp_path / "refined.pt"
    command = ["refine", str(source), "--data", str(new_data), "--where", "index%4=0,1,2", "-o", str(output)]
    assert main([*command, "--test", str(new_data), "--test-where", "index%4=3"]) == 0
    told = capsys.readouterr().out
    assert "refined with 12 structures" in told and "warning" not in told
    refined = DOSModel.load(output, "cpu")
    assert refined.info.fingerprint != guarded.info.fingerprint and refined.n_members == guarded.n_members
    # the update itself, from the references
    used, others = (read_references(new_data, guarded, where=f"index%4={k}") for k in ("0,1,2", "3"))
    errors = {}
    for name, model in (("before", guarded), ("after", refined)):
        targets, predictions = [r.target for r in others], [model.dos(r.atoms) for r in others]
        errors[name] = dos_rmse(targets, predictions, np.full(len(others), 12.0), 0.05)[0]
    assert errors["after"] < 0.7 * errors["before"]
    assert f"| test | 4 | {errors['before']:.4f} | {errors['after']:.4f} |" in told
    # the last layer itself: least squares, with the ridge that was found
    rows, moved = np.array([guarded.evaluate(r.atoms).features[:-2].astype(float) / 4 for r in used]), []
    for r in used:
        shift = align(r.target, guarded.dos(r.atoms), 0.05).shift
        moved.append((shifted_target(r.target, shift) - guarded.dos(r.atoms)) / 4)
    ridge = refine_model(source, used, tmp_path / "same.pt").ridge
    rigidity = guarded.readout.rigidity
    precision = rigidity.cholesky @ rigidity.cholesky.T + ridge * np.eye(rigidity.n_last_layer)
    change = (refined.readout.mean_weights - guarded.readout.mean_weights).numpy()
    for c in (20, 120, 320, 331):
        expected = least_squares(rows, np.array(moved)[:, c], precision, 1.0)
        np.testing.assert_allclose(change[c, :-2], expected, rtol=1e-3, atol=1e-3 * np.abs(change).max())
    assert not change[:, -2:].any()
    # members are about the new mean; grades know the new structures
    for atoms in structures(2):
        np.testing.assert_array_equal(refined.evaluate(atoms).features, guarded.evaluate(atoms).features)
        np.testing.assert_allclose(refined.dos_members(atoms).mean(axis=0), refined.dos(atoms), rtol=1e-4, atol=1e-4)
    old, new = rigidity, refined.readout.rigidity
    expected = old.cholesky @ old.cholesky.T + rows.T @ rows
    np.testing.assert_allclose(new.cholesky @ new.cholesky.T, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert new.n_structures == 42 and new.reference == old.reference
    assert main(["info", str(output)]) == 0
    assert f"itself and {guarded.info.fingerprint[:12]}" in capsys.readouterr().out
    with pytest.raises(SettingError, match="exists already; give another output"):
        refine_model(source, used, output)


def test_traces_of_the_old_model(guarded: DOSModel, new_data: Path, tmp_path: Path) -> None:
    """Read with the refined one, they are what it would have sampled itself; the record says which readout it was."""
    source, output = Path(guarded.path), tmp_path / "refined.pt"
    for path in (source, readout_path(source)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = tmp_path / source.name
    gap = Network(DOSNetwork(guarded.grid.n), guarded.grid, "gap", model=guarded.info.fingerprint)
    gap.save(network_path(source, "gap"))
    refine_model(source, read_references(new_data, guarded), output)
    models = {"old": DOSModel.load(source, "cpu"), "new": DOSModel.load(output, "cpu")}
    for name, model in models.items():
        with Trace.open(tmp_path / f"{name}.zarr", model=model) as trace:
            for step in range(6):
                trace.append(model.evaluate(rattled_aluminium(step)), step=step, temperature_K=600.0)
    found = {name: analyze(tmp_path / f"{name}.zarr", output) for name in models}
    for quantity in ("dos", "heat_capacity", "heat_capacity_model_std", "heat_capacity_sampling_err", "dos_model_std"):
        np.testing.assert_array_equal(found["old"][quantity], found["new"][quantity])
    before = analyze(tmp_path / "old.zarr", source)
    assert float(np.abs(before["dos"] - found["old"]["dos"]).max()) > 0.01
    record = provenance(found["old"])
    assert record["model"]["fingerprint"] == models["old"].info.fingerprint
    assert record["model"]["readout"]["fingerprint"] == models["new"].info.fingerprint
    assert record["model"]["readout"]["path"] == str(readout_path(output)) and len(record["model"]["readout"]["sha256"])
    assert "with the readout of `refined` in place of its own" in methods_paragraph(found["old"], record)
    assert not {"readout_fingerprint", "readout_path"} & (found["new"].attrs.keys() | before.attrs.keys())
    json.dumps(record)
    # the network reads the old DOS: it stays behind, and is refused, also of what is calibrated or refined once more
    info = models["new"].info
    assert find_networks(output, info, models["new"].readout) == {}
    gap.save(network_path(output, "gap"))
    with pytest.raises(ModelError, match="trained on predictions of another model"):
        find_networks(output, info, models["new"].readout)
    network_path(output, "gap").unlink()
    calibrate_model(output, read_references(new_data, guarded), tmp_path / "calibrated.pt", n_members=4)
    refine_model(tmp_path / "calibrated.pt", read_references(new_data, guarded), tmp_path / "again.pt")
    calibrated, again = (Readout.load(tmp_path / f"{n}.readout.safetensors") for n in ("calibrated", "again"))
    prints = [guarded.info.fingerprint, info.fingerprint, calibrated.fingerprint]
    assert [calibrated.predicts_as(p) for p in prints] == [False, True, True]
    assert [again.belongs_to(p) for p in prints] == [True] * 3 and not any(again.predicts_as(p) for p in prints)


def test_warnings(metal_path: Path, metal: DOSModel, tmp_path: Path) -> None:
    """Residuals that have nothing to do with the structure; a model that does not know its training set; few structures."""
    rng, written = np.random.default_rng(1), structures(6)
    for i, atoms in enumerate(written):
        atoms.info["dos"] = metal.dos(atoms) + (-1) ** i * np.exp(-((metal.grid.energies + 6) ** 2) / 2) * rng.normal(
            1, 0.1
        )
    ase.io.write(tmp_path / "data.xyz", written, format="extxyz")
    references = read_references(tmp_path / "data.xyz", metal)
    told = refine_model(metal_path, references[:4], tmp_path / "a.pt", test=references[4:]).text()
    assert "does not know its training set" in told and "4 structures hardly tell" in told
    assert "the error of the new structures left out in turn does not fall" in told
    report = refine_model(metal_path, references, tmp_path / "b.pt", weight=0.0)
    unchanged = DOSModel.load(tmp_path / "b.pt", "cpu")
    np.testing.assert_array_equal(unchanged.dos(written[0]), metal.dos(written[0]))
    np.testing.assert_allclose(unchanged.dos_members(written[0]), metal.dos_members(written[0]), rtol=1e-5, atol=1e-6)
    assert report.left_out[0] == pytest.approx(report.left_out[1])
    with pytest.raises(SettingError, match="got 1 new structures, expected at least 2; choose more"):
        refine_model(metal_path, references[:1], tmp_path / "c.pt")
