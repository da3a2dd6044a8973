"""Traces of format 1, as petdos-md wrote them before its arrays and attributes had their present names: read, never written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers.traces import MODEL, assert_is, make_sample, path, tmp_path

from petdos_md.base.errors import TraceError
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.cli.main import main
from petdos_md.traces.trace import Trace

TYPES = {
    **{name: "float64" for name in ("time_fs", "temperature_K", "kinetic_temperature_K", "potential_energy_eV")},
    **{name: "float64" for name in ("volume_A3", "n_electrons", "weight")},
    **{"step": "int64", "replica": "int32", "n_atoms": "int64"},
}
"""The columns of format 1 and their data types; ``psi`` has that of the model."""
COLD = {"electronic_temperature_K": float("nan")}  # there were no hot electrons then
KEYS = [(0, 10), (1, 10), (0, 20), (1, 20), (0, 30)]


def write_format1(path: Path, samples: list[Sample], **attributes: Any) -> None:
    """What version 1 of docs/trace-format.md asks for, byte by byte, without the code of the package."""
    for name, dtype in {**TYPES, "psi": samples[0].model.dtype}.items():
        values = np.array([getattr(s, "features" if name == "psi" else name) for s in samples], dtype)
        write_array(path / name, values, chunk_rows=64 if name == "psi" else 1024)
    (path / "psi" / "writer.lock").write_text("process 4711 on node7\n")
    (path / "zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group", "attributes": group(samples[0].model, **attributes)})
    )


def write_array(folder: Path, values: np.ndarray, chunk_rows: int) -> None:
    """Chunks of full size, padded with zeros; metadata."""
    width = list(values.shape[1:])
    for index in range(-(-len(values) // chunk_rows)):
        chunk = np.zeros((chunk_rows, *width), values.dtype)
        rows = values[index * chunk_rows : (index + 1) * chunk_rows]
        chunk[: len(rows)] = rows
        file = folder.joinpath("c", str(index), *["0"] * len(width))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chunk.tobytes())
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(values.shape),
        "data_type": str(values.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_rows, *width]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if values.dtype.kind == "i" else "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "dimension_names": ["sample", "feature"][: values.ndim],
        "attributes": {"description": ""},
    }
    (folder / "zarr.json").write_text(json.dumps(metadata))


def group(model: ModelInfo, **attributes: Any) -> dict[str, Any]:
    """Attributes by their names of then."""
    described = model.to_dict()
    described["n_psi"] = described.pop("n_features")
    described["kind"] = {"separated": "folded"}.get(model.kind, model.kind)
    return {
        "schema": "petdos-trace",
        "schema_version": 1,
        "created": "2026-01-31T12:00:00+00:00",
        "model": described,
        "versions": {"petdos-md": "0.1.0"},
        "engine": "ase",
        "timestep_fs": 2.0,
        "metadata": {"seed": 1, "ensemble": "nvt", "pressure_GPa": 0.0, "potential": "emt", "formula": "Al4"},
        "refused": {"prediction is not finite": 2},
        "refused_last_step": {"0": 25, "1": 15},
        "n_refused": 2,
        **attributes,
    }


def bytes_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def old(path: Path) -> Path:
    write_format1(path, [make_sample(step, replica, **COLD) for replica, step in KEYS])
    return path


def test_read(old: Path) -> None:
    """Every sample to the last bit; model and attributes by their present names."""
    trace = Trace.open(old, "r", MODEL)
    assert_is(trace, KEYS, **COLD)
    assert trace.model == MODEL and trace.skipped == {"prediction is not finite": 2} and trace.timestep_fs == 2.0
    assert not [key for key in (*trace.attributes, *trace.attributes["model"]) if re.search("refused|psi", key)]
    np.testing.assert_array_equal(
        trace.features[2:4], [make_sample(20, replica, **COLD).features for replica in (0, 1)]
    )


def test_length(old: Path) -> None:
    """Where a writer was killed during a commit, psi is the shortest."""
    file = old / "psi" / "zarr.json"
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps({**metadata, "shape": [3, *metadata["shape"][1:]]}))
    assert_is(Trace.open(old, "r"), KEYS[:3], **COLD)


@pytest.mark.parametrize("act", ["append", "truncate", "skip"])
def test_not_written(old: Path, act: str) -> None:
    """One line that names the way out; no byte of the trace changes, nor by opening it for writing."""
    before = bytes_of(old)
    trace = Trace.open(old, model=MODEL)
    calls = {
        "append": lambda: trace.append(make_sample(40, **COLD)),
        "truncate": lambda: trace.truncate(10),
        "skip": lambda: trace.skip("positions are not finite", step=40),
    }
    with pytest.raises(TraceError, match=f"a trace of format 1, .*`petdos merge NEW.zarr {old}`") as caught:
        calls[act]()
    assert "\n" not in str(caught.value)
    trace.close()
    assert bytes_of(old) == before


def test_merge(old: Path, tmp_path: Path) -> None:
    """A copy in the present format, which stock zarr reads, and with which the run goes on where it was."""
    new = tmp_path / "new.zarr"
    assert main(["merge", str(new), str(old)]) == 0
    assert_is(Trace.open(new, "r", MODEL), KEYS, **COLD)
    features = zarr.open_group(new, mode="r")["features"][:]
    np.testing.assert_array_equal(features, [make_sample(step, replica, **COLD).features for replica, step in KEYS])
    attributes = json.loads((new / "zarr.json").read_text())["attributes"]
    assert attributes["schema_version"] == 2 and attributes["model"] == MODEL.to_dict()
    assert attributes["metadata"]["potential"] == "emt" and attributes["sources"][0]["n_skipped"] == 2
    with Trace.open(new, model=MODEL) as trace:
        assert not trace.skip("prediction is not finite", step=25) and trace.skip("prediction is not finite", step=35)
        assert not trace.append(make_sample(30, **COLD)) and trace.append(make_sample(40, **COLD))
    assert_is(Trace.open(new, "r"), [*KEYS, (0, 40)], **COLD)


def test_merged_with_others(path: Path, tmp_path: Path) -> None:
    """A trace that was itself merged in format 1, of a trajectory that was evaluated by a command of another name."""
    source = {"path": "a.zarr", "engine": "eval", "n_refused": 3, "sources": [{"path": "b.zarr", "n_refused": 1}]}
    write_format1(path, [make_sample(10, **COLD)], engine="eval, ase", sources=[source])
    with Trace.open(tmp_path / "more.zarr", model=MODEL) as more:
        more.append(make_sample(10, 7, **COLD))
    merged = Trace.merge(tmp_path / "new.zarr", [path, tmp_path / "more.zarr"])
    assert_is(merged, [(0, 10), (7, 10)], **COLD)
    inner = merged.attributes["sources"][0]["sources"][0]
    assert merged.engine == "rerun, ase" and inner["engine"] == "rerun"
    assert inner["n_skipped"] == 3 and inner["sources"][0] == {"path": "b.zarr", "n_skipped": 1}


def test_interrupted_rewind(old: Path) -> None:
    """Rows that were being moved in format 1 are left to the version that moved them."""
    np.savez(old / "psi" / "rewind.npz", start=1)
    with pytest.raises(
        TraceError, match="format 1 that was being rewound when its writer was killed; open it with the"
    ):
        Trace.open(old, "r")


def test_dropped_while_it_is_read(old: Path) -> None:
    """An old program may still go back behind a reader, and write other samples."""
    trace = Trace.open(old, "r")
    assert trace.step.tolist() == [step for _, step in KEYS]
    write_format1(old, [make_sample(step + 5, replica, **COLD) for replica, step in KEYS])
    with pytest.raises(TraceError, match="samples were dropped by its writer while this was being read"):
        _ = trace[0]


def test_analysis(tmp_path: Path) -> None:
    """The numbers of a trace do not depend on its format."""
    pytest.importorskip("torch")
    from helpers import synthetic

    from petdos_md.analysis.analyze import analyze

    frames = [*synthetic.samples(90, 1, 300.0), *synthetic.samples(90, 2, 600.0, replica=1)]
    write_format1(tmp_path / "old.zarr", frames)
    synthetic.write(tmp_path / "new.zarr", frames)
    one, other = (analyze(tmp_path / f"{name}.zarr", synthetic.readout()) for name in ("old", "new"))
    for name in ("dos", "heat_capacity", "heat_capacity_model_std", "heat_capacity_sampling_err", "volume"):
        np.testing.assert_array_equal(one[name], other[name])


def test_command(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, one line and the exit status of an error."""
    assert main(["truncate", str(old), "--step", "10"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"petdos: error: {old}: a trace of format 1")
    assert os.path.exists(old / "psi")
