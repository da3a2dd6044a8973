"""Traces that are joined."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.traces import MODEL, assert_is, make_sample, path, tmp_path

from petdos_md.base.errors import TraceError
from petdos_md.traces import schema
from petdos_md.traces.trace import Trace


def test_merge(tmp_path: Path) -> None:
    for name, replica, steps in (("a", 0, range(1500)), ("b", 0, range(5)), ("c", 4, range(3))):
        with Trace.open(
            tmp_path / name,
            engine=f"engine-{name}",
            timestep_fs=2.0,
            flush_every=5000,
            metadata={"beads": 1, "x": name},
        ) as trace:
            for step in steps:
                trace.append(make_sample(step, replica))
            trace.skip("features are not finite")
    merged = Trace.merge(tmp_path / "ac", [tmp_path / "a", tmp_path / "c"])
    assert_is(merged, [*((0, step) for step in range(1500)), *((4, step) for step in range(3))])
    assert merged.n_skipped == 2 and merged.timestep_fs == 2.0 and merged.engine == "engine-a, engine-c"
    assert merged.attributes["metadata"] == {"beads": 1}
    merged = Trace.merge(tmp_path / "abc", [tmp_path / "ac", tmp_path / "b"])
    assert merged.replica.tolist() == [0] * 1500 + [1] * 3 + [2] * 5
    assert merged.step.tolist() == [*range(1500), *range(3), *range(5)]
    np.testing.assert_array_equal(merged.features[-5:], merged.features[:5])
    sources = merged.attributes["sources"]
    assert [source["path"] for source in sources] == [str(tmp_path / "ac"), str(tmp_path / "b")]
    assert [source["n_samples"] for source in sources] == [1503, 5]
    assert [source["replicas"] for source in sources] == [{"0": 0, "4": 1}, {"0": 2}]
    with Trace.open(tmp_path / "abc") as trace:  # goes on like any other
        assert trace.append(make_sample(5, 2))


def test_merge_keeps_the_parts_of_one_simulation_together(tmp_path: Path) -> None:
    for name, steps in (("a", range(5)), ("b", range(5, 9)), ("c", range(8, 10))):
        with Trace.open(tmp_path / name) as trace:
            for step in steps:
                trace.append(make_sample(step))
    merged = Trace.merge(tmp_path / "ab", [tmp_path / "a", tmp_path / "b"], replicas="keep")
    assert_is(merged, [(0, step) for step in range(9)])
    with pytest.raises(
        TraceError, match=r"replica 0, step 8 is both in .*/ab and .*/c; if .* leave out .*\(--keep-replicas\)"
    ):
        Trace.merge(tmp_path / "abc", [tmp_path / "ab", tmp_path / "c"], replicas="keep")
    assert not (tmp_path / "abc").exists()


def test_merge_refuses(tmp_path: Path) -> None:
    other = dataclasses.replace(MODEL, fingerprint="f" * 64, name="other")
    Trace.open(tmp_path / "a", model=MODEL)
    Trace.open(tmp_path / "b", model=other)
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for output, paths, replicas, message in [
        (out, [a, b], "auto", "/b: trace of another model: it holds samples of 'test'"),
        (out, [a, tmp_path / "none"], "auto", "/none: no such trace"),
        (out, [], "auto", "no traces given"),
        (b, [a], "auto", "/b: exists already"),
        (out, [a], "some", "replicas='some' given, expected 'auto' or 'keep'"),
    ]:
        with pytest.raises(TraceError, match=message):
            Trace.merge(output, paths, replicas=replicas)
        assert not out.exists()


def test_lists_by_replica_follow_their_replicas(tmp_path: Path) -> None:
    """The pressure of a sample is that of its new replica number, whatever the order of the sources."""
    ladders = {"a": ([300.0, 600.0], [0.0, 1.0]), "b": ([300.0, 900.0], [5.0, 7.0]), "c": ([1200.0], None)}
    for name, (temperatures, pressures) in ladders.items():
        about = {
            "temperatures_K": temperatures,
            "formula": "Al4",
            **({"pressures_GPa": pressures} if pressures else {}),
        }
        with Trace.open(tmp_path / name, metadata=about) as trace:
            for replica, temperature in reversed(list(enumerate(temperatures))):
                trace.append(make_sample(0, replica, temperature_K=temperature))
    merged = Trace.merge(tmp_path / "all", [tmp_path / name for name in "bca"])
    known = merged.attributes["metadata"]
    assert known["formula"] == "Al4"
    for sample in merged:
        assert known["temperatures_K"][sample.replica] == sample.temperature_K
    assert known["temperatures_K"] == [300.0, 900.0, 1200.0, 300.0, 600.0]
    assert known["pressures_GPa"] == [5.0, 7.0, None, 0.0, 1.0]
    assert [source["metadata"]["temperatures_K"] for source in merged.attributes["sources"]] == [
        ladders[name][0] for name in "bca"
    ]
    again = Trace.merge(tmp_path / "more", [tmp_path / "all", tmp_path / "a"]).attributes["metadata"]
    assert again["temperatures_K"] == [300.0, 900.0, 1200.0, 300.0, 600.0, 300.0, 600.0]


def test_lists_by_replica_of_parts(tmp_path: Path) -> None:
    """Numbers that are kept: entries of the parts complete each other; what contradicts is not told."""
    for name, replica, temperatures in (("a", 0, [300.0]), ("b", 2, [None, None, 900.0]), ("c", 1, [301.0, 600.0])):
        with Trace.open(tmp_path / name, metadata={"temperatures_K": temperatures}) as trace:
            trace.append(make_sample(0, replica))
    merged = Trace.merge(tmp_path / "ab", [tmp_path / "a", tmp_path / "b"], replicas="keep")
    assert merged.attributes["metadata"] == {"temperatures_K": [300.0, None, 900.0]}
    with Trace.open(tmp_path / "d", metadata={"temperatures_K": [350.0]}) as trace:
        trace.append(make_sample(1, 0))
    merged = Trace.merge(tmp_path / "ad", [tmp_path / "a", tmp_path / "d"], replicas="keep")
    assert merged.attributes["metadata"] == {}


@pytest.mark.parametrize("n_rows", [120_000, 1_000_000])
def test_a_long_trace_comes_to_lie_in_few_files(n_rows: int) -> None:
    """Chunks, one metadata file for each array, and those of the group."""
    chunks = 0
    for name in schema.ARRAYS:
        rows = schema.array_metadata(name, 1026, "float32", n_rows)["chunk_grid"]["configuration"]["chunk_shape"][0]
        chunks += -(-n_rows // rows)
    assert chunks + len(schema.ARRAYS) + 3 <= 300


def test_short_traces_keep_short_chunks() -> None:
    """A merged trace goes on growing: its chunks are never shorter than those of a new one."""
    for name in schema.ARRAYS:
        assert schema.array_metadata(name, 37, "float32", 100) == schema.array_metadata(name, 37, "float32")
