"""Force fields for i-PI against ASE and i-PI's own metatomic driver; features as extras and the reducer against the observer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from helpers.ipi_runs import aluminium, assert_complete, loaded, write_input
from ipi.utils.softexit import softexit
from ipi.utils.units import unit_to_internal

from petdos_md.ase import DOSCalculator
from petdos_md.base.errors import ModelError, SettingError, StructureError
from petdos_md.cli.main import main
from petdos_md.engines.ipi.drivers import FeaturesDriver, PotentialDriver
from petdos_md.engines.ipi.hook import DRIVERS
from petdos_md.ipi import attach
from petdos_md.traces.trace import Trace

LADDER = (400.0, 520.0, 676.0)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sheared():
    atoms = aluminium()
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1, 0], [0, 0.07, 1]], scale_atoms=True)
    return atoms


def sent(atoms):
    """Cell and positions as i-PI sends them."""
    return tuple(unit_to_internal("length", "angstrom", x) for x in (atoms.cell.array.T, atoms.positions))


def test_potential_is_that_of_ase(metal, metal_path: Path) -> None:
    atoms = sheared()
    ase.io.write("init.xyz", aluminium())
    driver = PotentialDriver(str(metal_path), "init.xyz", features=True, verbosity=False)
    energy, forces, virial, extras = driver(*sent(atoms))
    atoms.calc = DOSCalculator(metal)
    assert abs(energy - unit_to_internal("energy", "electronvolt", atoms.get_potential_energy())) < 1e-6 * abs(energy)
    np.testing.assert_allclose(forces, unit_to_internal("force", "ev/ang", atoms.get_forces()), atol=1e-6)
    expected = unit_to_internal("energy", "electronvolt", -atoms.get_volume() * atoms.get_stress(voigt=False))
    np.testing.assert_allclose(virial, expected, atol=2e-6)
    features = metal.evaluate(atoms).features
    np.testing.assert_allclose(json.loads(extras)["petdos"], features, rtol=0, atol=1e-5 * np.abs(features).max())
    both = driver([sent(atoms)[0]] * 2, [sent(atoms)[1]] * 2)
    assert len(both) == 2 and abs(both[1][0] - energy) < 1e-9 + 1e-6 * abs(energy)


def test_potential_is_that_of_ipis_own_driver(metal_path: Path) -> None:
    """A peer: the metatomic driver that comes with i-PI, of the same file."""
    from ipi.pes.metatomic import MetatomicDriver

    atoms = sheared()
    ase.io.write("init.xyz", aluminium())
    ours = PotentialDriver(str(metal_path), "init.xyz")(*sent(atoms))
    theirs = MetatomicDriver(template="init.xyz", model=str(metal_path))(*sent(atoms))
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * max(1.0, float(np.abs(b).max())))


def test_wrong_driver_settings(metal_path: Path, tmp_path: Path, model_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.xyz: no such file"):
        PotentialDriver(str(metal_path), "none.xyz")
    atoms = aluminium()
    ase.io.write("init.xyz", atoms)
    with pytest.raises(ModelError, match="nowhere"):
        FeaturesDriver("nowhere", "init.xyz")
    with pytest.raises(SettingError, match="i-PI sends 3 atoms, the template has 8"):
        FeaturesDriver(str(metal_path), "init.xyz")(*sent(atoms[:3]))
    atoms.symbols[0] = "Cu"
    ase.io.write("copper.xyz", atoms)
    with pytest.raises(StructureError, match="element Cu is unknown"):
        FeaturesDriver(str(metal_path), "copper.xyz")


FEATURES = """<ffdirect name='features'><pes> custom </pes><pes_path> {path} </pes_path><parameters> {{model: {model}, template: init.xyz}} </parameters></ffdirect>"""
OUTPUT = """<trajectory stride='4' filename='features' extra_type='petdos'> {what} </trajectory>
<properties stride='2' filename='label'> [stress_md{{gigapascal}}, step, time{{femtosecond}}, ensemble_temperature{{kelvin}}, potential{{electronvolt}}, volume{{angstrom3}}, temperature{{kelvin}}] </properties>"""


@pytest.mark.parametrize(
    ("beads", "what"),
    [(1, "extras_component_raw(1)"), pytest.param(4, "extras_component_raw(1)", marks=pytest.mark.slow), (4, "extras")],
)
def test_collected_extras_are_what_the_observer_samples(
    tmp_path: Path, metal, metal_path: Path, beads: int, what: str, capsys
) -> None:
    """Features through i-PI's files, interrupted and resumed from an older checkpoint, against the observer of the same run."""
    settings = {
        "forcefields": FEATURES.format(path=DRIVERS / "petdos_features.py", model=metal_path),
        "forces": "<force forcefield='emt'/><force forcefield='features' weight='0'/>",
        "more_output": OUTPUT.format(what=what),
    }
    if what == "extras":  # of the potential itself: those of a component with weight 0 are not among them
        settings["forces"] = "<force forcefield='features'/>"
        settings["forcefields"] = re.sub(
            "petdos_features(.*)init.xyz", r"petdos_potential\1init.xyz, features: True", settings["forcefields"]
        )
    path = write_input(tmp_path, steps=16, checkpoint=10, beads=beads, temperatures=LADDER[:2], **settings)
    with loaded(path) as simulation:
        observer = attach(simulation, metal, "observed.zarr", every=4)
        simulation.run()
        softexit.cleanup(status="success", message="the end")
        observer.close()
    text = Path("run.chk_1").read_text()
    Path("older").write_text(re.sub(r"<total_steps>\s*16", "<total_steps> 14", text))
    with loaded(Path("older")) as simulation:  # ends before the first part did: steps after 14 are given up
        observer = attach(simulation, metal, "observed.zarr", every=4)
        simulation.run()
        softexit.cleanup(status="success", message="the end")
        observer.close()
    assert main(["ipi", "input.xml", "--collect", "init.xyz", "--dos", str(metal_path), "-o", "collected.zarr"]) == 0
    assert "samples: collected.zarr" in capsys.readouterr().out
    observed, collected = Trace.open("observed.zarr", "r"), Trace.open("collected.zarr", "r")
    assert_complete(collected, LADDER[:2], 4, 12)
    assert_complete(observed, LADDER[:2], 4, 12)
    told, expected = (trace.attributes["metadata"] for trace in (collected, observed))
    assert told == expected and told["beads"] == beads and told["temperatures_K"] == [*LADDER[:2]]
    assert collected.timestep_fs == pytest.approx(observed.timestep_fs, rel=1e-6)
    order = [np.lexsort((t.replica, t.step)) for t in (observed, collected)]
    for name, tolerance in (("features", 1e-5), ("potential_energy_eV", 1e-7), ("volume_A3", 1e-7), ("time_fs", 1e-7)):
        a, b = (np.asarray(getattr(t, name))[o] for t, o in zip((observed, collected), order, strict=True))
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())
    assert main(["ipi", "input.xml", "--collect", "init.xyz", "--dos", str(metal_path), "-o", "collected.zarr"]) == 2
    assert "collected.zarr: exists" in capsys.readouterr().err


def test_files_cut_short_by_a_kill(tmp_path: Path, metal_path: Path, capsys) -> None:
    """The last frame and the last row may be half written; the rest counts."""
    settings = {
        "forcefields": FEATURES.format(path=DRIVERS / "petdos_features.py", model=metal_path),
        "forces": "<force forcefield='emt'/><force forcefield='features' weight='0'/>",
        "more_output": OUTPUT.format(what="extras_component_raw(1)"),
    }
    path = write_input(tmp_path, steps=12, temperatures=LADDER[:2], **settings)
    with loaded(path) as simulation:
        simulation.run()
    file = Path("1_run.features")
    file.write_bytes(file.read_bytes()[:-300])
    label = Path("0_run.label")
    label.write_bytes(label.read_bytes()[:-20])
    assert main(["ipi", "input.xml", "--collect", "init.xyz", "--dos", str(metal_path), "-o", "c.zarr"]) == 0
    assert_complete(Trace.open("c.zarr", "r"), LADDER[:2], 4, 8)


def test_collect_leaves_no_half_trace(tmp_path: Path, metal_path: Path, capsys) -> None:
    """A damaged line in the middle: the same command works once the file is mended."""
    settings = {
        "forcefields": FEATURES.format(path=DRIVERS / "petdos_features.py", model=metal_path),
        "forces": "<force forcefield='emt'/><force forcefield='features' weight='0'/>",
        "more_output": OUTPUT.format(what="extras_component_raw(1)"),
    }
    with loaded(write_input(tmp_path, steps=12, temperatures=LADDER[:2], **settings)) as simulation:
        simulation.run()
    file = Path("1_run.features")
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    headers = [i for i, line in enumerate(lines) if "#EXTRAS" in line]
    lines[headers[-2] + 1] = "1.0 2.0\n"
    file.write_text("".join(lines))
    command = ["ipi", "input.xml", "--collect", "init.xyz", "--dos", str(metal_path), "-o", "c.zarr"]
    assert main(command) == 2
    assert "the features of step 8 are damaged" in capsys.readouterr().err and not Path("c.zarr").exists()
    file.write_text(whole)
    assert main(command) == 0
    assert_complete(Trace.open("c.zarr", "r"), LADDER[:2], 4, 12)


def test_collect_refuses(tmp_path: Path, metal_path: Path, capsys) -> None:
    command = ["ipi", "input.xml", "--collect", "init.xyz", "--dos", str(metal_path), "-o", "c.zarr"]
    path = write_input(tmp_path)
    assert main(command) == 2
    assert "writes no features; add <trajectory ... extra_type='petdos'>" in capsys.readouterr().err
    path = write_input(tmp_path, more_output=OUTPUT.format(what="extras").replace("ensemble_temperature{kelvin}, ", ""))
    text = path.read_text().replace("ensemble_temperature{kelvin}, ", "")
    path.write_text(text)
    assert main(command) == 2
    assert "no <properties> with step and ensemble_temperature{kelvin}" in capsys.readouterr().err
    path = write_input(tmp_path, more_output=OUTPUT.format(what="extras"))
    assert main(command) == 2
    assert "no such file, nor one for each system" in capsys.readouterr().err
    assert not Path("c.zarr").exists()


@pytest.mark.parametrize("beads", [1, 2])
def test_features_come_with_the_forces(tmp_path: Path, metal, metal_path: Path, beads: int, monkeypatch) -> None:
    """At the stride of the observer alone, without another pass of the network; the samples are those of a pass of their own."""
    sent: list[bool] = []
    passes: list[int] = []
    one, evaluate = PotentialDriver._one, metal.evaluate

    def watched(self: PotentialDriver, atoms):
        answer = one(self, atoms)
        sent.append(len(json.loads(answer[3])["petdos"]) > 0 if answer[3] else False)
        return answer

    monkeypatch.setattr(PotentialDriver, "_one", watched)
    monkeypatch.setattr(metal, "evaluate", lambda atoms: passes.append(len(atoms)) or evaluate(atoms))
    traces = {}
    for name, features in (("apart", ""), ("together", ", features: together.zarr")):
        pes = f"<pes> custom </pes><pes_path> {DRIVERS}/petdos_potential.py </pes_path>"
        pes += f"<parameters> {{model: {metal_path}, template: init.xyz{features}}} </parameters>"
        path = write_input(
            tmp_path,
            steps=8,
            beads=beads,
            temperatures=LADDER[:2],
            forces="<force forcefield='both'/>",
            forcefields=f"<ffdirect name='both'>{pes}</ffdirect>",
        )
        sent.clear()
        passes.clear()
        with loaded(path) as simulation:
            observer = attach(simulation, metal, f"{name}.zarr", every=4)
            simulation.run()
            observer.close()
        traces[name] = Trace.open(f"{name}.zarr", "r")
        if name == "apart":
            assert passes == [2 * beads, 2 * beads] and not any(sent)
        else:
            # Eight steps and the initial structure; of these, two steps of two systems with features.
            assert passes == [] and sum(sent) == 2 * 2 * beads and len(sent) == 9 * 2 * beads
    a, b = traces["apart"], traces["together"]
    assert len(a) == len(b) == 4 and np.array_equal(a.step, b.step) and np.array_equal(a.n_atoms, b.n_atoms)
    assert np.array_equal(a.replica, b.replica) and np.allclose(a.volume_A3, b.volume_A3)
    difference = np.abs(np.array(a.features, float) - np.array(b.features, float)).max()
    assert difference < 1e-5 * np.abs(np.array(a.features)).max()
    assert (tmp_path / "together.zarr.asks").read_text() == ""


def test_features_of_another_model_are_not_taken(tmp_path: Path, metal, metal_path: Path, model) -> None:
    """The driver sends none then, and the observer evaluates."""
    pes = f"<pes> custom </pes><pes_path> {DRIVERS}/petdos_potential.py </pes_path>"
    pes += f"<parameters> {{model: {metal_path}, template: init.xyz, features: run.zarr}} </parameters>"
    path = write_input(
        tmp_path,
        steps=4,
        temperatures=LADDER[:1],
        forces="<force forcefield='both'/>",
        forcefields=f"<ffdirect name='both'>{pes}</ffdirect>",
    )
    with loaded(path) as simulation:
        observer = attach(simulation, model, "run.zarr", every=2)
        simulation.run()
        last = observer._batch(simulation.syslist)[0]
        observer.close()
    trace = Trace.open("run.zarr", "r")
    assert len(trace) == 2 and np.allclose(trace.features[1], last.features, rtol=1e-4, atol=1e-4)
    with pytest.raises(SettingError, match="cannot be made"):
        PotentialDriver(str(metal_path), "init.xyz", features="nowhere/run.zarr")
