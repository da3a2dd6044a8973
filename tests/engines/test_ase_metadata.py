"""What the observer for ASE says of a simulation, and the kinetic temperature that it stores."""

from __future__ import annotations

import os
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixCom
from ase.md.andersen import Andersen
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.melchionna import MelchionnaNPT
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.nptberendsen import NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from petdos_md.ase import DOSCalculator, DOSObserver
from petdos_md.base.errors import TraceError
from petdos_md.engines.labels import kinetic_temperature_K
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace


@pytest.fixture
def atoms() -> Atoms:
    """Hot aluminium with a potential."""
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=3)
    atoms.calc = EMT()
    return atoms


def dynamics(atoms: Atoms, seed: int = 0) -> Langevin:
    return Langevin(
        atoms, 2 * units.fs, temperature_K=600, friction=0.02 / units.fs, rng=np.random.default_rng(seed), fixcm=False
    )


class TestMetadata:
    """What the trace says of the simulation, against what the dynamics were made with."""

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda a: VelocityVerlet(a, units.fs), ("nve", None, None)),
            (lambda a: Langevin(a, units.fs, temperature_K=450, friction=0.1, fixcm=False), ("nvt", 450.0, None)),
            (lambda a: Andersen(a, units.fs, 450, 0.1), ("nvt", 450.0, None)),
            (lambda a: Bussi(a, units.fs, 450, 50 * units.fs), ("nvt", 450.0, None)),
            (lambda a: NVTBerendsen(a, units.fs, 450, taut=50 * units.fs), ("nvt", 450.0, None)),
            (lambda a: NoseHooverChainNVT(a, units.fs, 450, 50 * units.fs), ("nvt", 600.0, None)),  # as the user says
            (lambda a: LangevinBAOAB(a, units.fs, temperature_K=450, T_tau=50 * units.fs, rng=1), ("nvt", 450.0, None)),
            (
                lambda a: LangevinBAOAB(
                    a,
                    units.fs,
                    temperature_K=450,
                    T_tau=50.0,
                    externalstress=-2 * units.GPa,
                    hydrostatic=True,
                    P_tau=1e2,
                    rng=1,
                ),
                ("npt", 450.0, 2.0),
            ),
            (
                lambda a: LangevinBAOAB(a, units.fs, externalstress=-2 * units.GPa, P_tau=1e2, P_mass=1e4),
                ("nph-anisotropic", None, 2.0),
            ),
            (
                lambda a: NPTBerendsen(
                    a,
                    units.fs,
                    temperature_K=450,
                    pressure_au=2 * units.GPa,
                    taut=50.0,
                    taup=500.0,
                    compressibility_au=1e-2,
                ),
                ("npt", 450.0, 2.0),
            ),
            (
                lambda a: IsotropicMTKNPT(a, units.fs, 450, 2 * units.GPa, 50 * units.fs, 500 * units.fs),
                ("npt", 450.0, 2.0),
            ),
            (lambda a: MTKNPT(a, units.fs, 450, 2 * units.GPa, 50.0, 500.0), ("npt-anisotropic", 450.0, 2.0)),
            (
                lambda a: MelchionnaNPT(
                    a, units.fs, temperature_K=450, externalstress=2 * units.GPa, ttime=25.0, pfactor=1e3
                ),
                ("npt-anisotropic", 450.0, 2.0),
            ),
            (
                lambda a: MelchionnaNPT(a, units.fs, temperature_K=450, externalstress=0.0, ttime=25.0, pfactor=None),
                ("nvt", 450.0, None),
            ),
            (lambda a: Unheard(a, units.fs), (None, 600.0, None)),
        ],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_of_dynamics(self, atoms, metal, tmp_path: Path, make, expected) -> None:
        rng = np.random.default_rng(0)
        thermalize_momenta(atoms, 450, rng=rng)
        dyn = make(atoms)
        with DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn, replica=1) as observer:
            observer()
        ensemble, temperature, pressure = expected
        wanted = {"formula": "Al8", "potential": "emt"}
        wanted |= {"ensemble": ensemble} if ensemble else {}
        wanted |= {"temperatures_K": [None, temperature]} if temperature else {}
        wanted |= {"pressures_GPa": [None, pressure]} if pressure is not None else {}
        known = Trace.open(tmp_path / "t.zarr", "r")
        assert known.attributes["metadata"] == wanted
        assert known.engine == "ase" and known.timestep_fs == pytest.approx(1.0, rel=1e-12)

    def test_a_schedule_is_no_target(self, atoms, metal, tmp_path: Path) -> None:
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", lambda: 300.0, dynamics=dynamics(atoms))
        assert "temperatures_K" not in observer.trace.attributes["metadata"]

    def test_of_replicas_in_one_trace(self, atoms, metal, tmp_path: Path) -> None:
        with Trace.open(tmp_path / "t.zarr", model=metal) as trace:
            for replica, temperature in ((1, 900), (0, 300)):
                observer = DOSObserver(
                    atoms,
                    metal,
                    trace,
                    temperature,
                    replica=replica,
                    metadata={"bias": "none", "seed": np.int64(5), "beads": 1},
                )
                observer()
        known = Trace.open(tmp_path / "t.zarr", "r").attributes["metadata"]
        expected = {
            "temperatures_K": [300.0, 900.0],
            "bias": "none",
            "seed": 5,
            "beads": 1,
            "formula": "Al8",
            "potential": "emt",
        }
        assert known == expected
        for change, message in (
            ({"metadata": {"beads": 4}}, "beads = 1, got 4"),
            ({"metadata": {"bias": "plumed"}}, "bias = none, got plumed"),
        ):
            with pytest.raises(TraceError, match=f"trace of another simulation: it has {message}"):
                DOSObserver(atoms, metal, tmp_path / "t.zarr", **{"temperature_K": 300, **change})
        atoms.calc = LennardJones()
        with pytest.raises(TraceError, match="potential = emt, got LennardJones"):
            DOSObserver(atoms, metal, tmp_path / "t.zarr", 300)

    def test_of_models(self, atoms, metal, metal_path: Path, tmp_path: Path, monkeypatch) -> None:
        """The full path of a model, whatever the folder was when it was loaded; the name of a shipped one."""
        monkeypatch.chdir(metal_path.parent)
        relative = DOSModel.load(metal_path.name)
        for potential, name in ((None, os.path.realpath(metal_path)), (EMT(), "emt")):
            atoms.calc = DOSCalculator(relative, potential)
            observer = DOSObserver(atoms, metal, tmp_path / f"{name[-3:]}.zarr", 300)
            assert os.path.realpath(observer.trace.attributes["metadata"]["potential"]) == os.path.realpath(name)
            assert os.path.isabs(observer.trace.attributes["metadata"]["potential"]) or potential is not None
        atoms.calc = DOSCalculator("almgsi-lda")
        observer = DOSObserver(atoms, metal, tmp_path / "shipped.zarr", 300)
        assert observer.trace.attributes["metadata"]["potential"] == "almgsi-lda"


class Unheard(VelocityVerlet):
    """Dynamics of somebody's own, of which nothing is known."""


class TestKineticTemperature:
    def test_equipartition(self) -> None:
        """Maxwell velocities of 500 K: 500 K on average within 4 standard errors, with and without a center of mass that moves."""
        rng = np.random.default_rng(0)
        for fixed in (False, True):
            values = []
            for _ in range(4000):
                atoms = Atoms("AlMgSi", positions=np.eye(3) * 3)
                thermalize_momenta(atoms, 500.0, rng=rng)
                if fixed:  # without ASE's rescaling
                    velocities = atoms.get_velocities()
                    center = atoms.get_masses() @ velocities / atoms.get_masses().sum()
                    atoms.set_velocities(velocities - center)
                values.append(kinetic_temperature_K(atoms))
            error = np.std(values) / len(values) ** 0.5
            assert abs(np.mean(values) - 500.0) < 4 * error < 30

    def test_degrees_of_freedom(self) -> None:
        atoms = ase.build.bulk("Al", cubic=True)
        assert np.isnan(kinetic_temperature_K(atoms))
        atoms.set_momenta(np.zeros((4, 3)))
        assert kinetic_temperature_K(atoms) == 0.0
        thermalize_momenta(atoms, 500.0, rng=np.random.default_rng(1))
        assert kinetic_temperature_K(atoms) == pytest.approx(atoms.get_temperature(), rel=1e-14)
        atoms.set_velocities(atoms.get_velocities() - atoms.get_velocities().mean(axis=0))
        kinetic = atoms.get_kinetic_energy()
        assert kinetic_temperature_K(atoms) == pytest.approx(2 * kinetic / (9 * units.kB), rel=1e-14)
        atoms.set_constraint(FixCom())
        assert kinetic_temperature_K(atoms) == pytest.approx(2 * kinetic / (9 * units.kB), rel=1e-14)
        one = Atoms("Al", momenta=[[1.0, 2.0, 3.0]])
        assert kinetic_temperature_K(one) == pytest.approx(14 / 26.9815385 / (3 * units.kB), rel=1e-6)
