"""``petdos info``, ``merge`` and ``truncate``; what is on disk is read with the zarr library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase.build
import numpy as np
import pytest
import zarr

from petdos_md.cli.main import main
from petdos_md.traces.trace import Trace


@pytest.fixture(scope="module")
def one(metal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replicas 0 and 1 side by side, at steps 0, 5, ..., 45."""
    path = tmp_path_factory.mktemp("traces") / "one.zarr"
    with Trace.open(path, model=metal, engine="me", timestep_fs=1.5) as trace:
        for step in range(0, 50, 5):
            for replica in (0, 1):
                atoms = ase.build.bulk("Al", cubic=True)
                atoms.rattle(0.05, seed=step + replica)
                trace.append(metal.evaluate(atoms), step=step, replica=replica, temperature_K=300.0 + 200 * replica)
        trace.skip("it was bad")
    return path


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(one, tmp_path / "run.zarr"))


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {name: array[:] for name, array in zarr.open_group(path, mode="r").arrays()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys() and "features" in found
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_info(one: Path, metal, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(one), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["samples"] == 20 and described["by temperature"] == {"300 K": 10, "500 K": 10}
    assert described["skipped"] == {"it was bad": 1} and described["fingerprint"] == metal.info.fingerprint
    assert main(["info", str(one)]) == 0
    assert "300 K 10, 500 K 10" in capsys.readouterr().out


def test_info_prefers_a_model_to_a_folder_of_its_name(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "almgsi-lda").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["info", "almgsi-lda", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["elements"] == ["Mg", "Al", "Si"]


class TestTruncate:
    @pytest.mark.parametrize(
        ("options", "dropped"),
        [
            (["--step", "20"], lambda a: a["step"] > 20),
            (["--step", "22", "--replica", "1"], lambda a: (a["step"] > 22) & (a["replica"] == 1)),
            (["--step", "45"], lambda a: a["step"] > 45),
            (["--step", "0"], lambda a: a["step"] > 0),
        ],
    )
    def test_drops_later_samples(self, options: list[str], dropped, copy: Path, capsys) -> None:
        before, attributes = arrays(copy), (copy / "zarr.json").read_bytes()
        drop = dropped(before)
        assert main(["truncate", str(copy), *options]) == 0
        whose = f" of replica {options[3]}" if len(options) > 2 else ""
        text = f"{copy}: dropped {drop.sum()} samples{whose} after step {options[1]}; {20 - drop.sum()} samples left\n"
        assert capsys.readouterr().out == text
        assert_same(arrays(copy), {name: values[~drop] for name, values in before.items()})
        assert (copy / "zarr.json").read_bytes() == attributes

    def test_finishes_what_was_interrupted(self, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A writer that was killed leaves features/truncate.npz of docs/trace-format.md: the rows from `start` on."""
        before = arrays(copy)
        kept = {name: values[8:][before["replica"][8:] == 0] for name, values in before.items()}
        np.savez(copy / "features" / "truncate.npz", start=8, **kept)
        assert main(["truncate", str(copy)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f"{copy}: finished a truncation that had been interrupted", f"{copy}: 14 samples left"]
        assert not (copy / "features" / "truncate.npz").exists()
        assert_same(arrays(copy), {name: np.concatenate([before[name][:8], kept[name]]) for name in before})

    def test_does_nothing_to_a_trace_that_is_whole(self, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = arrays(copy)
        assert main(["truncate", str(copy)]) == 0
        assert capsys.readouterr().out == f"{copy}: no interrupted truncation, nothing to do; 20 samples\n"
        assert_same(arrays(copy), before)

    def test_leaves_a_trace_to_its_writer(self, copy: Path, metal, capsys: pytest.CaptureFixture[str]) -> None:
        with Trace.open(copy, model=metal) as trace:
            trace.append(metal.evaluate(ase.build.bulk("Al")), step=50, temperature_K=300.0)
            assert main(["truncate", str(copy), "--step", "20"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "being written by process" in line
        assert len(Trace.open(copy, "r")) == 21


class TestMerge:
    def test_numbers_replicas_through(self, one: Path, copy: Path, tmp_path: Path, capsys) -> None:
        new = tmp_path / "new.zarr"
        assert main(["merge", str(new), str(one), str(copy)]) == 0
        first = f"{one}: 20 samples, replicas {{}}\n".format
        lines = capsys.readouterr().out.splitlines()
        assert lines[1:] == [f"{copy}: 20 samples, replicas 0 -> 2, 1 -> 3", f"{new}: 40 samples"]
        assert lines[0] == first("0, 1").strip()
        sources = [arrays(one), arrays(copy)]
        sources[1]["replica"] = sources[1]["replica"] + 2
        assert_same(arrays(new), {name: np.concatenate([s[name] for s in sources]) for name in sources[0]})

    def test_keeps_replicas_of_parts(self, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The parts of a trace, one per replica, make the trace again."""
        before = arrays(one)
        parts = []
        for replica in (0, 1):
            parts.append(shutil.copytree(one, tmp_path / f"part-{replica}.zarr"))
            with Trace.open(parts[-1]) as trace:
                trace.truncate(-1, replica=1 - replica)
        new = tmp_path / "new.zarr"
        assert main(["merge", "--keep-replicas", str(new), *map(str, parts)]) == 0
        assert f"{parts[1]}: 10 samples, replica 1\n" in capsys.readouterr().out
        order = np.argsort(before["replica"], kind="stable")
        assert_same(arrays(new), {name: values[order] for name, values in before.items()})
        assert main(["merge", "--keep-replicas", f"{tmp_path}/clash", str(one), str(parts[0])]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "replica 0, step 0 is both in" in line and not (tmp_path / "clash").exists()
