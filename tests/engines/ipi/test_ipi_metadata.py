"""What a trace of i-PI says of its simulation, against the input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.ipi_runs import aluminium, loaded, write_input

from petdos_md.engines.ipi.input_file import describe_input
from petdos_md.ipi import Observer, attach
from petdos_md.traces.trace import Trace

BASE = {
    "formula": "Al8",
    "beads": 1,
    "ensemble": "nvt",
    "temperatures_K": [400.0, 520.0, 676.0],
    "potential": "emt",
    "bias": "none",
    "seed": 5,
}


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(path: Path, model, output: str = "run.zarr") -> dict:
    with loaded(path) as simulation:
        observer = attach(simulation, model, output, every=4)
        assert isinstance(observer, Observer)
        observer.close()
    return Trace.open(output, "r").attributes["metadata"]


def test_of_a_simulation(tmp_path: Path, metal) -> None:
    assert told(write_input(tmp_path), metal) == BASE
    again = Trace.open("run.zarr", "r")
    assert again.timestep_fs == 2.0 and again.attributes["versions"]["ipi"].startswith("3.3")
    npt = told(write_input(tmp_path, ensemble="npt", pressure=0.25), metal, "npt.zarr")
    assert npt == {**BASE, "ensemble": "npt", "pressures_GPa": [0.25] * 3}


def test_of_bias_and_scaled_potentials(tmp_path: Path, metal) -> None:
    second = "<ffdirect name='umbrella'><pes> harmonic </pes><parameters> {k1: 0.0} </parameters></ffdirect>"
    bias = "<bias><force forcefield='umbrella'/></bias>"
    path = write_input(tmp_path, bias=bias, forcefields=second)
    assert told(path, metal) == {**BASE, "bias": "umbrella"}
    path = write_input(
        tmp_path,
        forces="<force forcefield='emt'/><force forcefield='emt' weight='0.5'/>",
        bias="<hamiltonian_weights> [1.0, 0.25] </hamiltonian_weights>",
    )
    assert told(path, metal, "scaled.zarr")["bias"] == "hamiltonian_weights 1,0.25 1,0.25 1,0.25"


def test_the_input_alone_says_the_same(tmp_path: Path, metal) -> None:
    """For traces made of outputs: what can be read in the input is what the server says."""
    for name, changes in (
        ("a", {}),
        ("b", {"ensemble": "npt", "beads": 2}),
        ("c", {"bias": "<bias><force forcefield='emt'/></bias>"}),
    ):
        path = write_input(tmp_path, **changes)
        server = told(path, metal, f"{name}.zarr")
        found = describe_input(path)
        assert found["timestep_fs"] == pytest.approx(2.0, rel=1e-6)
        assert found["metadata"] == {key: server[key] for key in ("ensemble", "potential", "bias", "seed")}
    path.write_text(re.sub(r"<seed>.*</seed>", "", path.read_text()).replace("<simulation", "<simulation broken", 1))
    assert describe_input(path)["metadata"] == {}


def test_a_trace_that_says_less_is_continued(tmp_path: Path, metal) -> None:
    """What is not known agrees with everything; what the simulation knows is added."""
    sample = metal.evaluate(aluminium())
    with Trace.open("run.zarr", model=metal, metadata={"formula": "Al8", "temperatures_K": [400.0000001]}) as trace:
        for replica, temperature in enumerate((400.0, 520.0, 676.0)):
            trace.append(sample, step=4, replica=replica, temperature_K=temperature)
    path = write_input(tmp_path)
    path.write_text(path.read_text().replace("<total_steps>", "<step> 5 </step><total_steps>"))
    with loaded(path) as simulation:
        observer = attach(simulation, metal, "run.zarr", every=4)
        simulation.run()
        observer.close()
    trace = Trace.open("run.zarr", "r")
    assert trace.attributes["metadata"] == {**BASE, "temperatures_K": [400.0000001, 520.0, 676.0]}
    assert trace.step.max() == 40 and len(trace) == 30
    assert set(trace.temperature_K[3:].tolist()) == {400.0000001, 520.0, 676.0}
