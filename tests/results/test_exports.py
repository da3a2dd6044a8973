"""Other programs read our files: phonopy runs with them, ASE, pymatgen and xarray take them, each as it comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import xarray as xr
from ase import Atoms
from helpers.synthetic import GRID, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.free_energy import VolumePoint, free_energies
from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import SettingError
from petdos_md.cli.main import main
from petdos_md.results.exports import dos_table, to_ase, to_pymatgen, trace_dataset, write_dataset
from petdos_md.results.phonopy_files import write_phonopy
from petdos_md.traces.trace import Trace

E = GRID.energies


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    frames = [s for t, k in ((300.0, 0), (900.0, 1)) for s in samples(40, seed=int(t), temperature_K=t, replica=k)]
    return write(tmp_path_factory.mktemp("exports") / "run.zarr", frames)


@pytest.fixture(scope="module")
def result(trace: Trace) -> xr.Dataset:
    return analyze(trace, readout(), reference="fermi")


def test_ase_takes_the_dos(result: xr.Dataset) -> None:
    data = to_ase(result, 900)
    chosen = to_ase(result.sel(temperature=900))
    np.testing.assert_array_equal(chosen.get_weights(), data.get_weights())
    np.testing.assert_allclose(data.get_weights(), result["dos"].sel(temperature=900), rtol=1e-12)
    wide = data.sample_grid(npts=201, xmin=-5, xmax=5, width=0.1)  # ASE's own broadening keeps the states
    inside = np.abs(E) < 5
    assert wide.get_weights().max() < 2 * data.get_weights().max() and inside.any()
    with pytest.raises(SettingError, match="temperatures 300, 900 K; say which"):
        to_ase(result)
    with pytest.raises(SettingError, match="no 500 K, only 300, 900 K"):
        to_ase(result, 500)


def test_pymatgen_takes_the_dos(result: xr.Dataset) -> None:
    pytest.importorskip("pymatgen.electronic_structure.dos")
    dos = to_pymatgen(result, 300)
    assert dos.efermi == 0.0
    assert np.interp(dos.efermi, dos.energies, dos.get_densities()) == pytest.approx(
        float(result["dos_at_fermi_level"][0]), rel=1e-3
    )


def test_csv_is_the_dos(result: xr.Dataset) -> None:
    table = dos_table(result)
    assert table.columns[0] == "E - E_F (eV)" and len(table.columns) == 7
    np.testing.assert_array_equal(
        table["DOS at 900 K model error (states/eV)"], result["dos_model_std"].sel(temperature=900)
    )


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_a_trace_needs_nothing_of_ours(trace: Trace, tmp_path: Path, ending: str) -> None:
    """In a process that cannot import this package, xarray gives the DOS of every frame and member."""
    path = tmp_path / f"run{ending}"
    write_dataset(trace_dataset(trace, readout(), members=True), path)
    code = (
        "import sys, xarray, numpy\n"
        "sys.modules['petdos_md'] = None\n"
        f"d = xarray.open_dataset({str(path)!r}, **({{}} if {ending!r} == '.nc' else {{'engine': 'zarr'}}))\n"
        "dos = (d['readout'] * d['features']).sum('feature').transpose('sample', 'energy').values\n"
        "extra = numpy.einsum('kef,sf->ske', d['deviations'].values, d['features'].values)\n"
        f"numpy.savez({str(tmp_path / 'out.npz')!r}, dos=dos, members=dos[:, None] + extra, energy=d['energy'].values)\n"
        "assert d.attrs['Conventions'].startswith('CF') and d['energy'].attrs['units'] == 'eV'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    found = np.load(tmp_path / "out.npz")
    features = np.asarray(trace.features)
    np.testing.assert_allclose(found["dos"], readout().dos(features), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found["members"], readout().members(features), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found["energy"], E)
    with pytest.raises(SettingError, match="exists already"):
        write_dataset(trace_dataset(trace, readout()), path)


def free_electrons(volume_A3: float, n: float = 24.0) -> np.ndarray:
    """g(E) of free electrons with 8 atoms in a volume: a band bottom at -10 eV, E_F as V^(-2/3)."""
    level = 10.0 * (130.0 / volume_A3) ** (2 / 3)
    return 1.5 * n / level**1.5 * np.sqrt(np.maximum(E + 10.0, 0.0))


def points(volumes: np.ndarray) -> list[VolumePoint]:
    bottom = [
        VolumePoint(f"V{v:g}", float(v), 8, 24.0, E, free_electrons(v)[None], -30.0 + 0.002 * (v - 131) ** 2)
        for v in volumes
    ]
    return bottom[::-1]  # not in the order of volumes


def test_free_energy_is_that_of_sommerfeld() -> None:
    """F(T) - F(0) = -gamma T^2 / 2 of a smooth metal, and the derivative of it is the entropy."""
    data = free_energies(points(np.array([120.0, 130.0, 140.0])), [0.0, 200.0, 400.0], n_atoms=16)
    assert data["volume"].values.tolist() == [240.0, 260.0, 280.0]
    for i, v in enumerate((120.0, 130.0, 140.0)):
        level = 10.0 * (130.0 / v) ** (2 / 3)
        gamma = np.pi**2 / 3 * BOLTZMANN_EV**2 * 1.5 * 24.0 / level
        np.testing.assert_allclose(data["free_energy_change"][:, i], [0, -gamma * 200**2, -gamma * 400**2], rtol=5e-3)
    assert np.isnan(data["free_energy_change_model_std"]).all()


def test_phonopy_runs_with_our_files(tmp_path: Path) -> None:
    """phonopy-qha with and without --efe: the electrons expand the lattice by what a minimization by SciPy gives."""
    pytest.importorskip("phonopy")
    volumes, temperatures = np.linspace(118.0, 146.0, 8), np.arange(0.0, 1001.0, 10.0)
    data = free_energies(points(volumes), temperatures)
    static, efe, _ = write_phonopy(data, tmp_path)
    yaml = []
    for i, v in enumerate(volumes):
        yaml.append(tmp_path / f"tp-{i}.yaml")
        yaml[-1].write_text(thermal_properties(v, temperatures))
    found = []
    for options in ([], ["--efe", str(efe)]):
        script = "from phonopy.cui.phonopy_qha_script import main; main()"
        command = [sys.executable, "-c", script, *options, "--tmax", "900", str(static), *map(str, yaml)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found.append(np.loadtxt(tmp_path / "volume-temperature.dat"))
    t, v = found[1].T
    shift = v - found[0][:, 1]
    at = int(np.flatnonzero(t == 800.0)[0])
    # Far from 0 K the shift is that of the minimum of phonons and electrons, found without phonopy.
    fine = np.linspace(122.0, 142.0, 20001)
    electrons = np.polyval(np.polyfit(volumes, data["free_energy_change"].sel(temperature=800.0), 5), fine)
    lattice = -30.0 + 0.002 * (fine - 131) ** 2 + phonon_free_energy(fine, 800.0)
    expected = fine[np.argmin(lattice + electrons)] - fine[np.argmin(lattice)]
    assert expected > 0.01
    assert shift[at] == pytest.approx(expected, rel=0.05)
    assert abs(shift[0]) < 1e-6


def phonon_free_energy(volume: np.ndarray | float, temperature: float) -> np.ndarray:
    """24 classical oscillators with a Grueneisen parameter of 2."""
    omega_eV = 0.02 * (np.asarray(volume) / 130.0) ** -2.0
    if temperature == 0:
        return 0 * omega_eV
    return 24 * BOLTZMANN_EV * temperature * np.log(omega_eV / (BOLTZMANN_EV * 1000.0))


def thermal_properties(volume: float, temperatures: np.ndarray) -> str:
    """As phonopy writes it, in kJ/mol."""
    lines = [
        "unit:\n  temperature: K\n  free_energy: kJ/mol\n  entropy: J/K/mol\n  heat_capacity: J/K/mol\n",
        "natom: 8\n",
    ]
    lines += ["num_modes: 24\nnum_integrated_modes: 24\n", "thermal_properties:\n"]
    for t in temperatures:
        f = float(phonon_free_energy(volume, float(t))) * 96.48533212
        entropy = 0.0 if t == 0 else -1e3 * f / t
        heat = 0.0 if t == 0 else 24 * 8.314462618
        lines.append(
            f"- temperature: {t:.7f}\n  free_energy: {f:.7f}\n  entropy: {entropy:.7f}\n  heat_capacity: {heat:.7f}\n  energy: 0.0\n"
        )
    return "".join(lines)


def test_command_from_structures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model on aluminium at three volumes: energies are those of its potential, F that of its DOS by quadrature."""
    import petdos_md as pm

    files = []
    for a in (4.0, 3.95, 4.05):
        files.append(tmp_path / f"{a}.xyz")
        ase.io.write(files[-1], ase.build.bulk("Al", a=a, cubic=True))
    command = [
        "free-energy",
        *map(str, files),
        "--dos",
        "almgsi-lda",
        "--potential",
        "almgsi-lda",
        "--temperature",
        "0:1000:500",
    ]
    assert main([*command, "-o", str(tmp_path / "qha")]) == 0
    assert "next: phonopy-qha --efe" in capsys.readouterr().out
    energies, efe = np.loadtxt(tmp_path / "qha/e-v.dat"), np.loadtxt(tmp_path / "qha/fe-v.dat")
    assert efe[:, 0].tolist() == [0, 500, 1000] and (np.diff(energies[:, 0]) > 0).all()
    model = pm.DOSModel.load("almgsi-lda")
    atoms: Atoms = ase.io.read(files[0])  # type: ignore[assignment]
    _, energy, *_ = model.evaluate_with_forces(atoms)
    assert energies[1] == pytest.approx([64.0, energy], rel=1e-6)
    np.testing.assert_allclose(efe[0, 1:], energies[:, 1], rtol=1e-9)
    table = pd.read_csv(tmp_path / "qha/free_energy.csv")
    assert (table["free_energy_change_model_std"][table["temperature"] > 0] > 0).all()
    # -F is the integral of the entropy.
    dos, n = model.dos(model.evaluate(atoms)), model.n_electrons(atoms)
    entropy = lambda t: float(pm.thermo.entropy(model.grid.energies, dos, n, t)) if t > 0 else 0.0  # noqa: E731
    expected, _ = scipy.integrate.quad(entropy, 0.0, 1000.0, epsrel=1e-6)
    assert efe[2, 2] - efe[0, 2] == pytest.approx(-expected, rel=1e-3)
    assert (
        main([*command[:-2], "--temperature", "300", "--energies", str(tmp_path / "none"), "-o", str(tmp_path / "x")])
        == 2
    )
