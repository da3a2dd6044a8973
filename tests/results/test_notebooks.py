"""What a notebook does with objects: shows them as HTML, copies and pickles them, runs a cell twice."""

from __future__ import annotations

import copy
import html.parser
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.build
import numpy as np
import pytest
from helpers.synthetic import readout, samples, write

import petdos_md as pm
from petdos_md.analysis.following import Follower
from petdos_md.analysis.options import AnalysisOptions, FrameSelection
from petdos_md.analysis.running import RunningAverage
from petdos_md.base.errors import TraceError
from petdos_md.base.rounding import with_named_errors
from petdos_md.engines.potentials import Potential
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}
Copy = Callable[[Any], Any]


@pytest.fixture(params=list(COPIES))
def copied(request: pytest.FixtureRequest) -> Copy:
    return COPIES[request.param]


class Facts(html.parser.HTMLParser):
    """The rows of a table; every tag must be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.caption, self.rows = "", {}
        self._cells: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self._cells = []
        if tag in ("th", "td"):
            self._cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows[self._cells[0]] = self._cells[1]

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "caption":
            self.caption += data
        else:
            self._cells[-1] += data


def test_html_of_a_trace_and_its_result(tmp_path: Path) -> None:
    trace = write(tmp_path / "a <b> & c.zarr", samples(40, seed=1, temperature_K=300.0))
    shown = Facts(trace._repr_html_())
    assert shown.rows["path"] == str(tmp_path / "a <b> & c.zarr") and shown.rows["samples"] == "40"
    assert shown.rows["temperatures"] == "300 K" and shown.rows["replicas"] == "1"
    running = RunningAverage(readout())
    running.extend(trace)
    result = running.result()
    table = Facts(result._repr_html_())
    assert table.caption == "300 K" and table.rows["samples"] == "40"
    assert table.rows["mu"] == f"{with_named_errors(result.chemical_potential)} eV"
    unit = result.n_atoms * 8.617333262e-5
    value, model = float(table.rows["C_el"].split()[2]), float(table.rows["C_el"].split()[4])
    assert value == pytest.approx(result.heat_capacity.value / unit, rel=1e-2)
    assert model == pytest.approx(result.heat_capacity.model_std / unit, rel=0.1)


def test_html_of_a_model_and_of_an_empty_trace(metal: DOSModel, tmp_path: Path) -> None:
    shown = Facts(metal._repr_html_())
    assert metal.info.name in shown.caption + "".join(shown.rows.values())
    assert str(metal.n_members) in " ".join(shown.rows.values())
    assert Facts(Trace.open(tmp_path / "new.zarr")._repr_html_()).rows["samples"] == "none yet"


def test_copies_of_what_is_computed(copied: Copy, tmp_path: Path) -> None:
    trace = write(tmp_path / "a.zarr", samples(40, seed=1, temperature_K=300.0))
    np.testing.assert_array_equal(copied(trace).features[:], trace.features[:])
    assert [s.step for s in copied(trace)] == trace.step.tolist()
    assert copied(pm.analyze(trace, readout())).identical(pm.analyze(trace, readout()))
    again, features = copied(readout()), trace.features[0].astype(float)
    np.testing.assert_array_equal(again.dos(features), readout().dos(features))
    running = RunningAverage(readout())
    running.extend(trace)
    other = copied(running)
    assert repr(other.result()) == repr(running.result()) == repr(copied(running.result()))
    other.extend(samples(1, seed=2, temperature_K=300.0, replica=1))
    assert (other.n_samples(), running.n_samples()) == (41, 40)
    for plain in (trace[0].model, trace[0].model.grid, AnalysisOptions()):
        assert copied(plain) == plain
    assert copied(FrameSelection(burn_in=3)) == FrameSelection(burn_in=3)
    follower = Follower(str(tmp_path / "a.zarr"), readout())
    follower.update()
    assert copied(follower).n_samples == follower.n_samples == 40


def test_copies_of_what_computes(copied: Copy, metal: DOSModel, metal_path: Path) -> None:
    atoms = ase.build.bulk("Al", cubic=True)
    atoms.rattle(0.05, seed=1)
    np.testing.assert_array_equal(copied(metal).evaluate(atoms).features, metal.evaluate(atoms).features)
    sample = metal.evaluate(atoms)
    np.testing.assert_array_equal(copied(sample).features, sample.features)
    for name in ("emt", str(metal_path)):
        potential = Potential.find(name, metal)
        energy = potential.calculator().get_potential_energy(atoms)
        assert copied(potential).calculator().get_potential_energy(atoms) == pytest.approx(energy, rel=1e-12)


def test_a_copy_of_a_writer_only_reads(copied: Copy, tmp_path: Path) -> None:
    """Two writers in one trace would overwrite what the other has taken."""
    frames = samples(6, seed=1, temperature_K=300.0)
    with Trace.open(tmp_path / "a.zarr", model=frames[0].model) as trace:
        for sample in frames[:4]:
            trace.append(sample)
        other = copied(trace)
        assert len(other) == 4  # what was in memory is there, too
        with pytest.raises(TraceError, match="opened for reading; open it with mode 'a' to write"):
            other.append(frames[4])
        trace.append(frames[5])
    del other
    assert Trace.open(tmp_path / "a.zarr", "r").step.tolist() == [s.step for s in [*frames[:4], frames[5]]]


def test_a_cell_that_runs_twice(metal: DOSModel, tmp_path: Path) -> None:
    """Structure, dynamics and observer made anew on the same path: samples go on behind those that are there, and analyses know them all."""
    cell = """
import ase.build
import numpy as np
from ase import units
from ase.md.langevin import Langevin
import petdos_md as pm
from petdos_md.ase import DOSCalculator, DOSObserver

atoms = ase.build.bulk("Al", cubic=True)
atoms.rattle(0.05, seed=3)
atoms.calc = DOSCalculator(metal)
dyn = Langevin(atoms, 2 * units.fs, temperature_K=600, friction=0.02 / units.fs, rng=np.random.default_rng(run), fixcm=False)
observer = DOSObserver(atoms, metal, path, temperature_K=600, dynamics=dyn)
dyn.attach(observer, interval=2)
dyn.run(8)
result = pm.analyze(observer.trace, metal)
shown = observer.result()._repr_html_() + observer.trace._repr_html_()
"""
    names: dict[str, Any] = {"metal": metal, "path": tmp_path / "run.zarr"}
    for run, expected in ((0, 5), (1, 10)):
        names["run"] = run
        exec(cell, names)
        assert int(names["result"]["n_samples"][0]) == expected == len(names["observer"].trace)
    steps = names["observer"].trace.step
    assert len(set(steps.tolist())) == 10 and (np.diff(steps) > 0).all()
