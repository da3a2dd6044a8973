"""Keywords of an analysis: types and objects agree, and what is wrong is named."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from helpers.synthetic import readout, samples, write

from petdos_md.analysis import options
from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.errors import SettingError
from petdos_md.physics.networks import Network


@pytest.mark.parametrize(
    ("function", "typed", "kinds"),
    [
        (analyze, options.AnalysisKeywords, (options.FrameSelection, options.AnalysisOptions)),
        (frame_levels, options.LevelKeywords, (options.FrameSelection, options.LevelOptions)),
        (reweighted_estimate, options.ReweightingKeywords, (options.ReweightingOptions,)),
    ],
)
def test_typed_keywords_are_the_fields(function, typed, kinds) -> None:
    """With the same types, no field twice, each with a default and described, and named where they are given."""
    names = [field.name for kind in kinds for field in fields(kind)]
    assert len(set(names)) == len(names)
    late = {"Network": Network}  # imported there for type checkers alone
    expected = {
        name: hint for kind in kinds for name, hint in get_type_hints(kind, localns=late).items() if name in names
    }
    assert get_type_hints(typed, localns=late) == expected and not typed.__required_keys__
    for kind in kinds:
        kind()
        assert all(f":param {field.name}:" in inspect.getdoc(kind) for field in fields(kind))
    text = inspect.getdoc(function)
    assert all(name in text for name in names)


@pytest.mark.parametrize("function", [analyze, frame_levels, reweighted_estimate])
def test_unknown_keywords(function, tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=rf"{function.__name__}\(\) got .* 'burnin', expected some of .*burn_in.*members"
    ):
        function(tmp_path / "none.zarr", burnin=5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"burn_in": -1}, r"burn_in=-1 \(--burn-in\) given, expected a number of steps >= 0"),
        ({"temperatures_K": 300.0}, r"temperatures_K=300\.0 given, expected a list"),
        ({"replicas": []}, r"replicas=\[\] given, expected a list of some, or None for all"),
        ({"weights": "nowhere.csv"}, r"nowhere\.csv: no such table of weights"),
        ({"n_electrons": float("nan")}, "n_electrons=nan given, expected a positive number"),
        ({"error_method": "jackknife"}, "error_method='jackknife' given, expected one of"),
        ({"align": "frames", "reference": "raw"}, r"give reference=\'fermi\' \(--reference fermi\) with it"),
        ({"denoise": True, "transform": abs}, "denoise and transform are both given"),
    ],
)
def test_wrong_choices(wrong: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        analyze(tmp_path / "none.zarr", **wrong)


def test_arrays_choose_frames_as_lists_do(tmp_path: Path) -> None:
    frames = [s for k, t in enumerate((300.0, 600.0)) for s in samples(12, seed=k, temperature_K=t, replica=k)]
    trace = write(tmp_path / "a.zarr", frames)
    chosen = [
        analyze(trace, readout(), temperatures_K=t, replicas=r) for t, r in (([600], (1,)), (np.array([600.0]), {1}))
    ]
    assert [data["temperature"].values.tolist() for data in chosen] == [[600.0], [600.0]]
    assert chosen[0].identical(chosen[1])


@pytest.mark.parametrize("temperatures", [[], 300.0, [[300.0]], [np.nan], [np.inf], [0.0], [300.0, -1.0]], ids=str)
def test_temperatures_of_the_electrons(temperatures, tmp_path: Path) -> None:
    trace = write(tmp_path / "t.zarr", samples(20, seed=1, temperature_K=300.0))
    with pytest.raises(
        SettingError, match=r"electronic_temperatures_K=.* given, expected a list of positive temperatures"
    ):
        analyze(trace, readout(), electronic_temperatures_K=temperatures)
