"""Tables of weights: which frame, which trace and which scale they mean; what they must not be taken for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.analysis.weights import FrameWeights, boltzmann_weights
from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import SettingError
from petdos_md.base.sample import Sample


def weighted_dos(frames: list[Sample], weights: np.ndarray) -> np.ndarray:
    spectra = np.array([readout().dos(sample.features) for sample in frames])
    return weights @ spectra / weights.sum()


@pytest.fixture
def two(tmp_path: Path) -> tuple[list[list[Sample]], list[Path], list[np.ndarray]]:
    """Two biased runs of one temperature, with the same replica and steps."""
    parts = [samples(20, seed=seed, temperature_K=500.0) for seed in (1, 2)]
    paths = [write(tmp_path / name / "run.zarr", part).path for name, part in zip("ab", parts, strict=True)]
    return parts, paths, [np.random.default_rng(seed).uniform(0.1, 2.0, 20) for seed in (3, 4)]


def table(path: Path, weights: np.ndarray, header: str = "step weight", trace: str = "") -> Path:
    lines = [f"{10 * i} {w!r} {trace}".strip() for i, w in enumerate(weights.tolist())]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_each_trace_has_a_table_of_its_own(two, tmp_path: Path) -> None:
    parts, paths, weights = two
    expected = weighted_dos(parts[0] + parts[1], np.concatenate(weights))
    tables = [table(tmp_path / f"{i}.txt", w) for i, w in enumerate(weights)]
    in_order = analyze(paths, readout(), weights=tables, reference="raw")
    np.testing.assert_allclose(in_order["dos"][0], expected, rtol=1e-10, atol=1e-12)
    turned = analyze(paths, readout(), weights=tables[::-1], reference="raw")
    assert np.abs(turned["dos"][0].values - expected).max() > 1e-4
    rows = [
        f"{path},{10 * i},{w!r}" for path, ws in zip(paths, weights, strict=True) for i, w in enumerate(ws.tolist())
    ]
    (tmp_path / "all.csv").write_text("\n".join(["trace,step,weight", *rows]))
    named = analyze(paths, readout(), weights=tmp_path / "all.csv", reference="raw")
    np.testing.assert_array_equal(named["dos"], in_order["dos"])
    levels = frame_levels(paths, readout(), methods=("raw",), weights=tmp_path / "all.csv")
    np.testing.assert_allclose(levels["weight"], np.concatenate(weights))


def test_a_table_that_could_mean_either_trace_is_refused(two, tmp_path: Path) -> None:
    _, paths, weights = two
    one = table(tmp_path / "w.txt", weights[0])
    with pytest.raises(SettingError, match="one table of weights for 2 traces does not say which frames it means"):
        analyze(paths, readout(), weights=one)
    with pytest.raises(SettingError, match="got 1 tables of weights for 2 traces"):
        analyze(paths, readout(), weights=[one])
    same_name = table(tmp_path / "n.txt", weights[0], "step weight trace", "run.zarr")
    with pytest.raises(SettingError, match=r"no weights for .*a/run.zarr, got those of elsewhere"):
        analyze(paths, readout(), weights=FrameWeights({("elsewhere", 0, 0): 1.0}))
    # Both folders are called run.zarr: the name alone says nothing.
    with pytest.raises(SettingError, match=r"both .*a/run.zarr and .*b/run.zarr are called run.zarr"):
        analyze(paths, readout(), weights=same_name)
    with pytest.raises(SettingError, match="only some weights name their trace"):
        FrameWeights({(0, 1): 1.0, ("a", 0, 1): 1.0})


@pytest.mark.parametrize("offsets", [(0.0, 0.0), (0.0, -800.0), (5000.0, 0.0)])
def test_logarithms_have_any_zero_at_each_temperature(offsets: tuple[float, float], tmp_path: Path) -> None:
    runs = [samples(15, seed=k, temperature_K=t, replica=k) for k, t in enumerate((300.0, 600.0))]
    trace = write(tmp_path / "a.zarr", runs[0] + runs[1])
    logs = np.random.default_rng(0).uniform(-2, 2, (2, 15))
    rows = [f"{k} {10 * i} {logs[k, i] + offsets[k]!r}" for k in (0, 1) for i in range(15)]
    (tmp_path / "w.txt").write_text(
        "\n".join(["replica step log_weight", *rows]).replace("np.float64(", "").replace(")", "")
    )
    result = analyze(trace, readout(), weights=tmp_path / "w.txt", reference="raw")
    for k in (0, 1):
        np.testing.assert_allclose(result["dos"][k], weighted_dos(runs[k], np.exp(logs[k])), rtol=1e-9, atol=1e-12)


def test_boltzmann_weights_of_several_temperatures_are_scaled_apart() -> None:
    """A bias of 30 eV at 300 K and of 0.1 eV at 600 K: exponents 1160 and 2."""
    bias, temperature = np.array([30.0, 30.01, 0.1, 0.0]), np.array([300.0, 300.0, 600.0, 600.0])
    weights = boltzmann_weights(bias, temperature)
    expected = [np.exp(-0.01 / (BOLTZMANN_EV * 300)), 1.0, 1.0, np.exp(-0.1 / (BOLTZMANN_EV * 600))]
    np.testing.assert_allclose(weights, expected, rtol=1e-9)


class TestTables:
    def test_header_of_plumed(self, tmp_path: Path) -> None:
        text = "#! FIELDS step weight frame bias\n#! SET min -1\n0 0.5 0 7.0\n#! FIELDS step weight frame bias\n1 0.25 1 9.0\n"
        (tmp_path / "COLVAR").write_text(text)
        weights = FrameWeights.read(tmp_path / "COLVAR").weights_of(np.array([0, 0]), np.array([0, 1]))
        assert weights.tolist() == [0.5, 0.25]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"#! FIELDS time weight\n0 1\n", "expected a header with step and weight .* got time weight"),
            (b"#! FIELDS step weight\n0 1\n#! FIELDS weight step\n1 1\n", "line 3 has another header"),
            (b"step weight extra\n0 1\n", r"line 2 has 2 columns, the header names 3 \(step weight extra\)"),
            (b"! FIELDS step weight\n0 1\n", "line 2 has 2 columns, the header names 4"),
            (b"step weight\n0.9 1\n", "line 2 has step 0.9, expected a whole number"),
            (b"replica step weight\n0.5 1 1\n", "line 2 has replica 0.5, expected a whole number"),
            (b"step weight\n1e999 1\n", "has step 1e999, expected a whole number"),
            (b"step weight log_weight\n0 1 0\n", "expected a header with step and weight"),
            (b"step step weight\n0 1 1\n", "the header names step twice"),
            (b"step weight\n", "a header without lines"),
            (b"", "got nothing"),
            (b"\x80\x04\x95\xff\xfe\x00", "cannot be read .it is no text."),
            (b"\x00\x01step weight", "expected a header"),
        ],
    )
    def test_what_is_not_a_table(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "w").write_bytes(content)
        with pytest.raises(SettingError, match=message) as caught:
            FrameWeights.read(tmp_path / "w")
        assert "\n" not in str(caught.value)

    def test_steps_written_as_floats_are_whole(self, tmp_path: Path) -> None:
        (tmp_path / "w").write_text("step weight\n10.0 2\n2e1 3\n")
        assert FrameWeights.read(tmp_path / "w").weights_of(np.zeros(2, int), np.array([10, 20])).tolist() == [2.0, 3.0]

    def test_weights_that_overflow_are_refused(self, tmp_path: Path) -> None:
        trace = write(tmp_path / "a.zarr", [replace(s, weight=1.0) for s in samples(20, seed=1, temperature_K=300.0)])
        huge = FrameWeights({(0, 10 * i): 1e308 for i in range(20)})
        with pytest.raises(SettingError, match="negative or not finite"):
            analyze(trace, readout(), weights=huge)
