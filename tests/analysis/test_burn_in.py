"""`burn_in="auto"` on runs whose relaxation is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.errors import SettingError
from petdos_md.base.sample import Sample
from petdos_md.cli.main import main


def relaxing(n: int, seed: int, drift: float, temperature_K: float, replica: int = 0) -> list[Sample]:
    """A run whose second feature starts far from its mean, and is within 1 % of that distance after 190 frames."""
    frames = samples(n, seed=seed, temperature_K=temperature_K, replica=replica, volume_A3=130.0)
    result = []
    for i, sample in enumerate(frames):
        features = sample.features.copy()
        features[1] += drift * np.exp(-i / 40)
        result.append(replace(sample, features=features, weight=1.0))
    return result


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample], list[Sample]]:
    """At 800 K one replica that relaxes and one that does not; at 400 K one that does."""
    first, calm = relaxing(1000, 1, 3.0, 800.0), relaxing(1000, 2, 0.0, 800.0, 1)
    cold = relaxing(1000, 3, 3.0, 400.0, 2)
    path = tmp_path_factory.mktemp("burn") / "a.zarr"
    return write(path, first + calm + cold).path, first, calm


def test_only_replicas_that_relax_lose_their_beginning(mixed, tmp_path: Path) -> None:
    path, first, calm = mixed
    result = analyze(path, readout(), burn_in="auto", reference="raw")
    found = result.attrs["burn_in_found"]
    assert result.attrs["burn_in"] == "auto" and len(found) == 2 and "replica 2, 400 K" in found[0]
    cut = 1000 - (int(result["n_samples"][1]) - 1000)
    assert 80 <= cut <= 300 and f"replica 0, 800 K: {cut} frames before step {10 * cut}" in found[1]
    # The same by hand, as a trace without these frames.
    by_hand = analyze(write(tmp_path / "b.zarr", first[cut:] + calm), readout(), reference="raw")
    for name in ("dos", "heat_capacity", "heat_capacity_sampling_err"):
        np.testing.assert_allclose(result[name].values[1], by_hand[name].values[0], rtol=1e-9, atol=1e-12)
    assert not any("drifts" in note for note in np.atleast_1d(by_hand.attrs.get("notes", [])))
    result.to_netcdf(tmp_path / "a.nc")


def test_all_analyses_leave_out_the_same(mixed) -> None:
    path = mixed[0]
    found = analyze(path, readout(), burn_in="auto")
    levels = frame_levels(path, readout(), burn_in="auto", methods=("raw",), members=False)
    reweighted = reweighted_estimate(path, None, readout(), burn_in="auto", members=False)
    assert levels.attrs["burn_in_found"] == reweighted.attrs["burn_in_found"] == found.attrs["burn_in_found"]
    assert levels["n_samples"].values.tolist() == found["n_samples"].values.tolist()
    assert reweighted.attrs["n_samples"] == int(found["n_samples"].sum())


def test_a_drift_that_is_kept_is_noted(mixed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mixed[0]
    notes = analyze(path, readout()).attrs["notes"]
    assert any(note.startswith("400, 800 K: the beginning drifts; leave it out with burn_in") for note in notes)
    late = analyze(path, readout(), burn_in=3000)
    assert late.attrs["burn_in"] == 3000 and not any(
        "drifts" in note for note in np.atleast_1d(late.attrs.get("notes", []))
    )
    with pytest.raises(
        SettingError, match=r"burn_in=some \(--burn-in\) given, expected a number of steps >= 0, or 'auto'"
    ):
        analyze(path, readout(), burn_in="some")
    with pytest.raises(SystemExit):
        main(["analyze", str(path), "-o", str(tmp_path / "o"), "--burn-in", "some"])
    assert "expected a number of steps or auto" in capsys.readouterr().err


def test_stationary_runs_are_seldom_noted(tmp_path: Path) -> None:
    """Four temperatures a time: together they raise a false alarm in 3 % of analyses at most."""
    alarms = cuts = 0
    for trial in range(16):
        frames = [s for k in range(4) for s in relaxing(150, 4 * trial + k, 0.0, 300.0 + k, k)]
        path = write(tmp_path / f"{trial}.zarr", frames).path
        alarms += any("drifts" in n for n in analyze(path, readout(members=0)).attrs["notes"])
        cuts += analyze(path, readout(members=0), burn_in="auto").attrs["burn_in_found"] != ["no drift"]
    assert alarms <= 3 and cuts <= 3  # of 16 at 3 %, more come in 0.1 % of such tests
