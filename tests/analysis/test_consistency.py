"""Frames that must not be averaged together, and what is said of those that are what they seem not to be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import readout, samples

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.errors import SettingError, StructureError, TraceError
from petdos_md.base.sample import Sample
from petdos_md.cli.main import main
from petdos_md.results.folder import check_folder
from petdos_md.results.report import write_report
from petdos_md.traces.trace import Trace


def write(path: Path, frames: list[Sample], **metadata) -> Path:
    with Trace.open(path, model=frames[0].model, metadata=metadata, fsync=False, flush_every=256) as trace:
        for sample in frames:
            assert trace.append(sample)
    return path


def run(temperature_K: float, seed: int = 0, n: int = 24, **changes) -> list[Sample]:
    plain = samples(n, seed=seed, temperature_K=temperature_K, volume_A3=130.0, **changes)
    return [replace(s, weight=1.0) for s in plain]


ANALYSES = (
    lambda traces, **k: analyze(traces, readout(), **k),
    lambda traces, **k: frame_levels(traces, readout(), methods=("raw",), **k),
    lambda traces, **k: reweighted_estimate(traces, None, readout(), **k),
)


@pytest.mark.parametrize("average", ANALYSES)
class TestOneMaterial:
    def test_two_formulas(self, average, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{x}.zarr", run(t), formula=x) for t, x in ((300.0, "Si8"), (600.0, "Al8"))]
        with pytest.raises(
            StructureError, match=r"Si8.zarr and .*Al8.zarr: frames of Si8 and of Al8, expected one material"
        ):
            average(paths)
        third = write(tmp_path / "Ge8.zarr", run(900.0, seed=3), formula="Ge8")
        with pytest.raises(StructureError, match="frames of Si8 and of Al8, expected one material"):
            average([*paths, third])
        same = write(tmp_path / "same.zarr", run(600.0, seed=5), formula="Si8")
        assert average([paths[0], same]).sizes["temperature"] >= 2

    def test_merged_traces_remember_the_formulas_of_their_sources(self, average, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{x}.zarr", run(t), formula=x) for t, x in ((300.0, "Si8"), (600.0, "Al8"))]
        merged = Trace.merge(tmp_path / "m.zarr", paths)
        assert "formula" not in merged.attributes["metadata"]
        with pytest.raises(StructureError, match="frames of Si8 and of Al8"):
            average(merged)
        assert average(merged, replicas=[1])["temperature"].values.tolist() == [600.0]

    def test_several_formulas_in_one_trace(self, average, tmp_path: Path) -> None:
        frames = run(300.0) + run(600.0, seed=1, replica=1)
        path = write(tmp_path / "a.zarr", frames, formula="Si8 Ge8")
        with pytest.raises(StructureError, match="frames of Si8 and of Ge8"):
            average(path)
        assert average(path, replicas=[0]).sizes["temperature"] == 1

    @pytest.mark.parametrize(("change", "what"), [({"n_atoms": 9}, "atoms"), ({"n_electrons": 32.0}, "electrons")])
    def test_unknown_formulas(self, average, change: dict, what: str, tmp_path: Path) -> None:
        paths = [write(tmp_path / "a.zarr", run(300.0)), write(tmp_path / "b.zarr", run(600.0, seed=1, **change))]
        with pytest.raises(
            StructureError, match=rf"a.zarr at 300 K has structures of \d+ {what}, .*b.zarr at 600 K of \d+"
        ):
            average(paths)

    def test_one_number_of_electrons_for_two_sizes(self, average, tmp_path: Path) -> None:
        nothing = {"n_electrons": float("nan")}
        paths = [write(tmp_path / "a.zarr", run(300.0, **nothing))]
        paths.append(write(tmp_path / "b.zarr", run(600.0, seed=1, n_atoms=16, **nothing)))
        with pytest.raises(StructureError, match="expected one material"):
            average(paths, n_electrons=24.0)

    def test_a_copy_counts_once(self, average, tmp_path: Path) -> None:
        original = write(tmp_path / "a.zarr", run(300.0))
        shutil.copytree(original, tmp_path / "copy.zarr")
        with pytest.raises(
            TraceError, match=r"a.zarr \(replica 0\) and .*copy.zarr \(replica 0\) hold the same 24 frames"
        ):
            average([original, tmp_path / "copy.zarr"])


class TestCopies:
    def test_a_copy_that_went_on_and_a_merged_copy(self, tmp_path: Path) -> None:
        frames = run(300.0, n=40)
        original, longer = write(tmp_path / "a.zarr", frames[:25]), write(tmp_path / "b.zarr", frames)
        with pytest.raises(TraceError, match="hold the same 25 frames"):
            analyze([original, longer], readout())
        other = write(tmp_path / "c.zarr", run(300.0, seed=3))
        merged = Trace.merge(tmp_path / "m.zarr", [original, other]).path
        with pytest.raises(TraceError, match="hold the same 24 frames"):
            analyze([other, merged], readout())

    def test_runs_with_the_same_first_frame_are_no_copies(self, tmp_path: Path) -> None:
        """Started from one structure with one set of velocities, by thermostats with other random numbers."""
        first, second = run(300.0, seed=1), run(300.0, seed=2)
        paths = [write(tmp_path / "a.zarr", first), write(tmp_path / "b.zarr", [first[0], *second[1:]])]
        assert int(analyze(paths, readout())["n_samples"][0]) == 48
        third = [replace(sample, potential_energy_eV=-1.0 - i) for i, sample in enumerate(second)]
        with pytest.raises(TraceError, match="hold the same 2 frames"):
            analyze([paths[0], write(tmp_path / "c.zarr", [*first[:2], *third[2:]])], readout())

    def test_runs_with_the_same_labels_are_no_copies(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{k}.zarr", run(300.0, seed=k)) for k in (1, 2)]
        assert int(analyze(paths, readout())["n_samples"][0]) == 48


class TestBias:
    def test_averages_of_a_biased_run_say_so(self, tmp_path: Path) -> None:
        biased = write(tmp_path / "a.zarr", run(300.0), bias="plumed")
        for average in ANALYSES[:2]:
            assert any(
                "averages are those of the biased ensemble; give weights" in n for n in average(biased).attrs["notes"]
            )
        with pytest.raises(SettingError, match=r"sampled with a bias \(plumed\)"):
            reweighted_estimate(biased, None, readout())
        weights = tmp_path / "w.txt"
        weights.write_text("\n".join(["step weight", *(f"{10 * i} {1 + i % 3}" for i in range(24))]))
        assert not any("biased" in n for n in analyze(biased, readout(), weights=weights).attrs["notes"])
        plain = write(tmp_path / "b.zarr", run(300.0), bias="none")
        assert not any("biased" in n for n in analyze(plain, readout()).attrs["notes"])

    def test_merged_traces_remember_the_bias_of_a_source(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"{b}.zarr", run(t), bias=b) for t, b in ((300.0, "none"), (600.0, "plumed"))]
        merged = Trace.merge(tmp_path / "m.zarr", paths)
        with pytest.raises(SettingError, match=r"sampled with a bias \(plumed\)"):
            reweighted_estimate(merged, None, readout())
        assert reweighted_estimate(merged, [300.0], readout(), replicas=[0]).sizes["temperature"] == 1


class TestNotes:
    def test_many_temperatures_are_one_note(self, tmp_path: Path) -> None:
        frames = [s for k in range(21) for s in run(300.0 + 10 * k, seed=k, n=5 + k % 3, replica=k)]
        notes = analyze(write(tmp_path / "ramp.zarr", frames), readout()).attrs["notes"]
        assert [n for n in notes if "no sampling error" in n] == [
            "300 to 500 K (21 temperatures): no sampling error, 5 to 7 frames are too few or too correlated to give one"
        ]

    def test_several_pressures_at_one_temperature(self, tmp_path: Path) -> None:
        frames = run(300.0) + run(300.0, seed=1, replica=1)
        path = write(tmp_path / "a.zarr", frames, ensemble="npt", pressures_GPa=[0.0, 5.0])
        notes = analyze(path, readout()).attrs["notes"]
        assert any("300 K: replicas of pressures from 0 to 5 GPa are averaged together" in note for note in notes)
        assert not any("pressures" in note for note in analyze(path, readout(), replicas=[1]).attrs["notes"])


class TestFolder:
    def test_results_are_not_written_into_a_trace(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write(tmp_path / "a.zarr", run(300.0))
        before = sorted(p.relative_to(path) for p in path.rglob("*"))
        result = analyze(path, readout())
        for folder in (path, path / "results", path / "features" / "x"):
            with pytest.raises(SettingError, match="give another folder for results"):
                write_report(result, folder)
            for command in ("analyze", "levels"):
                assert main([command, str(path), "-o", str(folder)]) == 2
                error = capsys.readouterr().err
                assert "give another folder for results" in error and error.count("\n") == 1
        assert main(["validate", "no-model", "no-data.xyz", "-o", str(path)]) == 2
        assert "give another folder for results" in capsys.readouterr().err
        assert sorted(p.relative_to(path) for p in path.rglob("*")) == before
        (tmp_path / "file").write_text("")
        with pytest.raises(SettingError, match="is a file, expected a folder"):
            check_folder(tmp_path / "file" / "out")


def test_a_simulation_that_runs_away_from_its_ensemble(tmp_path: Path) -> None:
    """Kinetic temperatures drawn from the canonical ensemble say nothing, however few the degrees of freedom; ones that explode do."""
    rng = np.random.default_rng(0)

    def told(kinetic_K: np.ndarray, n_atoms: int) -> list[str]:
        frames = [
            replace(s, kinetic_temperature_K=float(k), n_atoms=n_atoms)
            for s, k in zip(run(300.0, n=len(kinetic_K)), kinetic_K, strict=True)
        ]
        path = write(tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr", frames)
        notes = analyze(path, readout()).attrs.get("notes", [])
        return [note for note in notes if "ran away" in note]

    # The last: all but one are held fixed.
    for n_atoms, freedom in ((1, 3), (2, 3), (2, 1), (8, 21), (100, 297), (100, 3)):
        assert not told(300.0 * rng.chisquare(freedom, 24) / freedom, n_atoms)
    for kinetic_K in (150.0, np.nan):
        assert not told(np.full(24, kinetic_K), 32)
    exploding = 300.0 * np.geomspace(1, 1e5, 24)
    (note,) = told(exploding, 8)
    assert (
        f"kinetic temperature {exploding.mean():.3g} K where the ensemble has 300 K; is the time step too long?" in note
    )
    assert told(600.0 * rng.chisquare(93, 24) / 93, 32)
