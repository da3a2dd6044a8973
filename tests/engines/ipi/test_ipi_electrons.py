"""Free energy of hot electrons in i-PI: against ASE, finite differences through i-PI itself, a conserved quantity, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from helpers.ipi_runs import aluminium, loaded, write_input
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_internal, unit_to_user

from petdos_md.ase import HotElectronCalculator
from petdos_md.base.errors import ElectronicTemperatureError, ModelError
from petdos_md.engines.ipi.hook import DRIVERS
from petdos_md.engines.ipi.hot_driver import ElectronsDriver
from petdos_md.ipi import attach
from petdos_md.models.hot_electrons import HotElectronForces
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

T_E = 8000.0
HOT = """<ffdirect name='hot'><pes> custom </pes><pes_path> {path} </pes_path><parameters> {{model: {model}, template: init.xyz, electronic_temperature: 8000}} </parameters></ffdirect>"""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("init.xyz", aluminium())


def sent(atoms):
    return tuple(unit_to_internal("length", "angstrom", x) for x in (atoms.cell.array.T, atoms.positions))


@pytest.mark.parametrize("with_potential", [True, False])
def test_driver_gives_what_ase_gives(hot_path: Path, hot_model, with_potential: bool) -> None:
    atoms = aluminium()
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1, 0], [0, 0.07, 1]], scale_atoms=True)
    driver = ElectronsDriver(
        str(hot_path), "init.xyz", electronic_temperature=T_E, with_potential=with_potential, features=True
    )
    energy, forces, virial, extras = driver(*sent(atoms))
    atoms.calc = EMT() if not with_potential else None
    cold = (
        (0.0, 0.0, 0.0)
        if with_potential
        else (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
    )
    atoms.calc = calculator = HotElectronCalculator(None if with_potential else EMT(), hot_model, T_E)
    expected = atoms.get_potential_energy(force_consistent=True) - cold[0]
    assert unit_to_user("energy", "electronvolt", energy) == pytest.approx(expected, abs=1e-8)
    np.testing.assert_allclose(unit_to_user("force", "ev/ang", forces), atoms.get_forces() - cold[1], atol=1e-8)
    stress = (atoms.get_stress(voigt=False) - cold[2]) * -atoms.get_volume()
    np.testing.assert_allclose(unit_to_user("energy", "electronvolt", virial), stress, atol=1e-8)
    told = json.loads(extras)
    numbers = [
        T_E,
        *(calculator.results[name] for name in ("electronic_free_energy", "electronic_thermal_energy", "entropy")),
    ]
    np.testing.assert_allclose(told["electrons"][:4], numbers, rtol=1e-9)
    np.testing.assert_allclose(told["petdos"], hot_model.evaluate(atoms).features, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"with_potential": True}, {"undo_smearing": 0.3}])
def test_driver_gives_derivatives(hot_path: Path, settings: dict) -> None:
    """Forces and virial of the driver by central differences of its energies, in the units of i-PI."""
    driver = ElectronsDriver(str(hot_path), "init.xyz", electronic_temperature=T_E, **settings)
    cell, positions = sent(aluminium())
    _, forces, virial, _ = driver(cell, positions)

    def slope(change: Callable[[float], tuple[np.ndarray, np.ndarray]], h: float) -> float:
        return float(driver(*change(h))[0] - driver(*change(-h))[0]) / (2 * h)

    for i, c in ((0, 0), (3, 1), (7, 2)):
        unit = np.zeros_like(positions)
        unit[i, c] = 1.0
        assert forces[i, c] == pytest.approx(-slope(lambda h, unit=unit: (cell, positions + h * unit), 2e-4), abs=2e-8)
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        # i-PI keeps cell vectors in columns.
        strained = lambda h, s=strain: ((np.eye(3) + h * s) @ cell, positions @ (np.eye(3) + h * s))  # noqa: E731
        assert virial[a, b] == pytest.approx(-slope(strained, 1e-5), abs=2e-5)
    assert np.abs(forces).max() > 1e-3


def test_shipped_model_in_ipi_and_ase() -> None:
    """Silicon in single precision, to 1e-5 of the largest force."""
    atoms = ase.build.bulk("Si", "diamond", a=5.39, cubic=True)
    atoms.rattle(0.1, seed=2)
    ase.io.write("init.xyz", atoms)
    energy, forces, _, _ = ElectronsDriver("almgsi-lda", "init.xyz", electronic_temperature=10_000.0)(*sent(atoms))
    there = HotElectronForces(DOSModel.load("almgsi-lda")).evaluate(atoms, 10_000.0)
    assert unit_to_user("energy", "electronvolt", energy) == pytest.approx(there.free_energy_eV, rel=1e-6)
    off = np.abs(unit_to_user("force", "ev/ang", forces) - there.forces).max()
    assert off < 1e-5 * np.abs(there.forces).max()


def test_force_component_beside_a_potential(tmp_path: Path, hot_path: Path, hot_model) -> None:
    """Within the stock server: the sum of EMT and the component moves the atoms as ASE's calculator would."""
    settings = {
        "forcefields": HOT.format(path=DRIVERS / "petdos_electrons.py", model=hot_path),
        "forces": "<force forcefield='emt'/><force forcefield='hot'/>",
    }
    path = write_input(tmp_path, steps=3, temperatures=(400.0,), **settings)
    with loaded(path) as simulation:
        observer = attach(simulation, hot_model, "run.zarr", every=1)
        simulation.run()
        observer.close()
        system = simulation.syslist[0]
        atoms = aluminium()
        atoms.positions = unit_to_user("length", "angstrom", dstrip(system.beads.q)[0].reshape(-1, 3))
        atoms.set_cell(unit_to_user("length", "angstrom", dstrip(system.cell.h).T))
        atoms.calc = HotElectronCalculator(EMT(), hot_model, T_E)
        forces = unit_to_user("force", "ev/ang", dstrip(system.forces.f)[0].reshape(-1, 3))
        energy = unit_to_user("energy", "electronvolt", float(system.forces.pot))
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-6)
    trace = Trace.open("run.zarr", "r")
    assert trace.attributes["metadata"]["electronic_temperature_K"] == T_E
    assert trace.electronic_temperature_K.tolist() == [T_E] * 3
    assert (tmp_path / "run.zarr" / "electronic_temperature_K").is_dir()
    assert trace.potential_energy_eV[-1] == pytest.approx(energy, abs=1e-6)
    assert energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-6)


@pytest.mark.parametrize("bad", [None, "ensemble", 0, -5.0, "nan", "hot", "0:300,5:600"])
def test_wrong_temperatures(hot_path: Path, bad) -> None:
    with pytest.raises(ElectronicTemperatureError, match="number of K"):
        ElectronsDriver(str(hot_path), "init.xyz", electronic_temperature=bad)


def test_potential_that_is_not_there(lammps_model_path: Path) -> None:
    with pytest.raises(ModelError, match="leave out with_potential"):
        ElectronsDriver(str(lammps_model_path), "init.xyz", electronic_temperature=T_E, with_potential=True)
