"""The MBAR-reweighted average against closed forms (harmonic oscillators, an ideal gas), Bennett's equation, and its own scatter."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from helpers import synthetic

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.consistency import _pressures_GPa
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.constants import BOLTZMANN_EV, GPA_A3_EV
from petdos_md.base.errors import SettingError
from petdos_md.base.sample import Sample
from petdos_md.cli.main import main
from petdos_md.physics.quantities import derive
from petdos_md.traces.trace import Trace

DOF = 12
LADDER = (400.0, 480.0, 576.0)
TARGETS = [400.0, 440.0, 525.0, 576.0]


def oscillators(n: int, temperature_K: float, rng: np.random.Generator, phi: float = 0.0) -> np.ndarray:
    """Energies (eV) of a series of harmonic oscillators, ``(n,)``: DOF kT / 2 on average."""
    x = rng.normal(size=DOF)
    energies = np.empty(n)
    for i in range(n):
        energies[i] = 0.5 * BOLTZMANN_EV * temperature_K * (x**2).sum()
        x = phi * x + np.sqrt(1 - phi**2) * rng.normal(size=DOF)
    return energies


def write(
    path: Path, series: dict[float, np.ndarray], feature=lambda energy: 2 + 3 * energy, metadata=None, **columns
) -> Trace:
    """A trace in which the first feature of features follows the energy (or what ``feature`` makes of it)."""
    with Trace.open(path, model=synthetic.info(), metadata=metadata, fsync=False, flush_every=4096) as trace:
        for replica, (temperature, energies) in enumerate(series.items()):
            for i, energy in enumerate(energies):
                own = {k: (v[temperature][i] if isinstance(v, dict) else v) for k, v in columns.items()}
                features = np.array([feature(energy), 1.0, 3.0, synthetic.N_ATOMS, 90.0], dtype=np.float32)
                trace.append(
                    Sample(features, synthetic.info(), synthetic.N_ATOMS, synthetic.N_ELECTRONS, own.pop("volume_A3", 130.0)),
                    replica=replica, step=i, temperature_K=temperature, potential_energy_eV=own.pop("energy_eV", energy), **own,
                )  # fmt: skip
    return Trace.open(path, "r")


def exact(temperatures: list[float]) -> dict[str, np.ndarray]:
    """Quantities of the exact average DOS."""
    t = np.array(temperatures)
    ones = np.ones_like(t)
    first = 2 + 3 * DOF / 2 * BOLTZMANN_EV * t
    features = np.stack([first, ones, 3 * ones, synthetic.N_ATOMS * ones, 90 * ones], axis=1)
    readout = synthetic.readout()
    return derive(
        readout.grid.energies,
        readout.dos(features),
        synthetic.N_ELECTRONS * ones,
        t,
        ("heat_capacity", "chemical_potential", "fermi_level"),
    )


@pytest.mark.parametrize("phi", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_harmonic_oscillators(tmp_path: Path, phi: float) -> None:
    """At sampled temperatures and between them: unbiased, with errors that are neither too small nor too large."""
    truth = exact(TARGETS)
    deviations, errors, plain = [], [], []
    for trial in range(40):
        rng = np.random.default_rng(trial)
        trace = write(tmp_path / f"{trial}.zarr", {t: oscillators(150, t, rng, phi) for t in LADDER})
        reweighted = reweighted_estimate(trace, TARGETS, synthetic.readout(), members=False)
        for name in truth:
            deviations.append(reweighted[name].values - truth[name])
            errors.append(reweighted[f"{name}_sampling_err"].values)
        own = analyze(trace, synthetic.readout(), members=False)
        plain.append(own["heat_capacity"].values - truth["heat_capacity"][0])
    deviations, errors = (np.array(x).reshape(40, 3, len(TARGETS)) for x in (deviations, errors))
    scatter, claimed = np.sqrt((deviations**2).mean(axis=0)), np.sqrt(np.nanmean(errors**2, axis=0))
    assert np.isfinite(errors).mean() > 0.9
    # 40 trials tell a scatter to 11 %, and the inefficiency of a series of 150 correlated frames is itself uncertain.
    np.testing.assert_allclose(claimed / scatter, 1.0, atol=0.3)
    assert (np.abs(deviations.mean(axis=0)) < 4 * scatter / np.sqrt(40)).all()
    # Reweighting is what it is for: at the lowest temperature the error is smaller than from its own frames.
    assert scatter[0, 0] < 0.95 * np.std([p[0] for p in plain])


def test_one_temperature_is_its_own_average(tmp_path: Path) -> None:
    trace = write(tmp_path / "x.zarr", {500.0: oscillators(400, 500.0, np.random.default_rng(1))})
    reweighted, own = (
        reweighted_estimate(trace, [500.0], synthetic.readout()),
        analyze(trace, synthetic.readout(), reference="raw"),
    )
    for name in ("heat_capacity", "chemical_potential", "fermi_level", "dos"):
        np.testing.assert_allclose(reweighted[name].values, own[name].values, rtol=1e-6)
        np.testing.assert_allclose(reweighted[f"{name}_model_std"].values, own[f"{name}_model_std"].values, rtol=1e-6)
    for name in ("heat_capacity", "chemical_potential"):
        assert 0.9 < float(reweighted[f"{name}_sampling_err"][0] / own[f"{name}_sampling_err"][0]) < 1.2
    assert abs(float(reweighted["n_effective"][0]) - 400) < 1e-6


@pytest.mark.parametrize(("high", "between"), [(520.0, [505, 510, 515]), (503.0, 500 * 1.006 ** (np.arange(1, 4) / 4))])
def test_temperatures_between_those_of_the_run(high: float, between: list[float], tmp_path: Path) -> None:
    """Three, evenly in the logarithm; whole numbers if these are no closer than 2 K."""
    rng = np.random.default_rng(1)
    trace = write(tmp_path / "x.zarr", {t: oscillators(60, t, rng) for t in (500.0, high)})
    found = reweighted_estimate(trace, None, synthetic.readout(), members=False)
    np.testing.assert_allclose(found["temperature"], [500.0, *between, high], rtol=1e-12)


@pytest.mark.parametrize(("phi", "noted"), [(0.0, False), (0.9, True)])
def test_few_independent_frames_are_noted(phi: float, noted: bool, tmp_path: Path) -> None:
    """Of 150 frames whose energies are correlated by phi^2, 150 (1 - phi^2) / (1 + phi^2) count: 16."""
    series = oscillators(150, 500.0, np.random.default_rng(1), phi)
    found = reweighted_estimate(
        write(tmp_path / "x.zarr", {500.0: series}), [500.0], synthetic.readout(), members=False
    )
    assert any("fewer than 20 independent frames count" in note for note in found.attrs.get("notes", [])) == noted


def test_two_states_solve_bennetts_equation(tmp_path: Path) -> None:
    """With two states MBAR is BAR: free energy and weights follow from one equation, solved here by hand."""
    rng = np.random.default_rng(3)
    series = {400.0: oscillators(120, 400.0, rng), 500.0: oscillators(80, 500.0, rng)}
    trace = write(tmp_path / "x.zarr", series)
    beta = 1 / (BOLTZMANN_EV * np.array([400.0, 500.0]))
    work = [(beta[1] - beta[0]) * u for u in series.values()]

    def imbalance(df: float) -> float:
        forward = 1 / (1 + 120 / 80 * np.exp(work[0] - df))
        backward = 1 / (1 + 80 / 120 * np.exp(-(work[1] - df)))
        return float(forward.sum() - backward.sum())

    df = scipy.optimize.brentq(imbalance, -20, 20, xtol=1e-12)
    u = np.concatenate(list(series.values()))
    target = 1 / (BOLTZMANN_EV * 450.0)
    weights = np.exp(-target * u) / (120 * np.exp(-beta[0] * u) + 80 * np.exp(df - beta[1] * u))
    features = weights @ np.concatenate([2 + 3 * u]) / weights.sum()
    reweighted = reweighted_estimate(trace, [450.0], synthetic.readout(), members=False)
    full = np.array([features, 1, 3, synthetic.N_ATOMS, 90])
    np.testing.assert_allclose(reweighted["dos"].values[0], synthetic.readout().dos(full), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(float(reweighted["n_effective"][0]), weights.sum() ** 2 / (weights**2).sum(), rtol=1e-5)


def test_constant_pressure(tmp_path: Path) -> None:
    """An ideal gas: V is distributed as V^N exp(-P V / kT), so that <V>(T) = (N + 1) kT / P."""
    rng = np.random.default_rng(5)
    n, pressure = 20, 2.0
    unit = pressure * GPA_A3_EV
    volumes = {t: rng.gamma(n + 1, BOLTZMANN_EV * t / unit, size=3000) for t in LADDER}
    known = {"ensemble": "npt", "temperatures_K": list(LADDER), "pressures_GPa": [pressure] * 3}
    trace = write(tmp_path / "x.zarr", volumes, lambda v: v / 20, known, energy_eV=0.0, volume_A3=volumes)
    reweighted = reweighted_estimate(trace, [440.0], synthetic.readout(), members=False)
    volume = (n + 1) * BOLTZMANN_EV * 440.0 / unit
    expected = synthetic.readout().dos(np.array([volume / 20, 1, 3, synthetic.N_ATOMS, 90]))
    feature = synthetic.readout().dos(np.array([1.0, 0, 0, 0, 0]))
    got = ((reweighted["dos"].values[0] - expected) @ feature) / (feature @ feature) * 20 / volume
    assert abs(got) < 4 / np.sqrt((n + 1) * 6000)
    # The same with the pressure given by hand; without one there is no answer.
    bare = write(tmp_path / "bare.zarr", volumes, lambda v: v / 20, None, energy_eV=0.0, volume_A3=volumes)
    again = reweighted_estimate(bare, [440.0], synthetic.readout(), members=False, pressure_GPa=pressure)
    np.testing.assert_allclose(again["dos"].values, reweighted["dos"].values)
    with pytest.raises(SettingError, match="the volume varies and the pressure is not known"):
        reweighted_estimate(bare, [440.0], synthetic.readout())


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"ensemble": "npt", "pressures_GPa": [1.0, 2.0, 3.0]}, [1.0, 3.0, 1.0]),
        ({"pressures_GPa": [1.0, 2.0, 3.0]}, [1.0, 3.0, 1.0]),
        ({"ensemble": "npt", "pressures_GPa": [1.0, 2.0]}, [1.0, np.nan, 1.0]),
        ({"ensemble": "npt", "pressures_GPa": [None, 2.0, 3.0]}, [np.nan, 3.0, np.nan]),
        ({"ensemble": "npt", "pressure_GPa": 5.0}, [5.0] * 3),  # format 1
        ({"ensemble": "nvt", "pressure_GPa": 5.0}, [np.nan] * 3),
        ({"ensemble": "nvt", "pressures_GPa": [5.0] * 3}, [np.nan] * 3),
        ({"ensemble": "nst", "pressures_GPa": [5.0] * 3}, [np.nan] * 3),
        ({}, [np.nan] * 3),
    ],
)
def test_pressures_of_replicas(metadata: dict, expected: list[float]) -> None:
    np.testing.assert_array_equal(_pressures_GPa(metadata, np.array([0, 2, 0])), expected)


def test_poor_overlap_and_extrapolation_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    trace = write(tmp_path / "x.zarr", {t: oscillators(200, t, rng) for t in (300.0, 3000.0)})
    notes = reweighted_estimate(trace, [300.0, 4000.0], synthetic.readout(), members=False).attrs["notes"]
    assert any("300 and 3000 K hardly overlap" in note for note in notes) and not any(
        "no others" in note for note in notes
    )
    assert any(note.startswith("4000 K: beyond the temperatures sampled") for note in notes)
    ladder = [300.0 * 10**k for k in range(5)]
    steep = write(tmp_path / "y.zarr", {t: oscillators(30, t, rng) for t in ladder})
    notes = reweighted_estimate(steep, [300.0], synthetic.readout(), members=False).attrs["notes"]
    (note,) = [note for note in notes if "hardly overlap" in note]
    assert note.startswith("300 and 3000; ... 300000 and 3e+06 K hardly overlap in 4 pairs (0.0")
    single = write(tmp_path / "one.zarr", {300.0: oscillators(200, 300.0, rng)})
    notes = reweighted_estimate(single, None, synthetic.readout(), members=False).attrs["notes"]
    assert any(note.startswith("all frames are of 300 K: there are no others to learn from") for note in notes)


def test_refusals(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    energies = {t: oscillators(20, t, rng) for t in LADDER}
    few = write(tmp_path / "few.zarr", energies)
    with pytest.raises(SettingError, match="got temperatures -3 to reweight to"):
        reweighted_estimate(few, [-3.0], synthetic.readout())
    quantum = write(tmp_path / "q.zarr", energies, metadata={"beads": 4})
    with pytest.raises(SettingError, match="a path integral with 4 beads"):
        reweighted_estimate(quantum, None, synthetic.readout())
    silent = write(tmp_path / "s.zarr", energies, energy_eV=float("nan"))
    with pytest.raises(SettingError, match="potential energies are missing"):
        reweighted_estimate(silent, None, synthetic.readout())
    weighted = write(tmp_path / "w.zarr", energies, weight=energies)
    with pytest.raises(SettingError, match="frames have weights"):
        reweighted_estimate(weighted, None, synthetic.readout())
    volumes = {t: rng.uniform(100, 101, 20) for t in LADDER}
    known = {"ensemble": "npt", "pressures_GPa": [0.0, 0.0, 1.0]}
    mixed = write(tmp_path / "m.zarr", energies, metadata=known, volume_A3=volumes)
    with pytest.raises(SettingError, match="pressures from 0 to 1 GPa"):
        reweighted_estimate(mixed, None, synthetic.readout())
    volumes[LADDER[1]][3] = np.nan
    partly = write(tmp_path / "p.zarr", energies, metadata={"ensemble": "npt", "pressure_GPa": 0.0}, volume_A3=volumes)
    with pytest.raises(SettingError, match="is missing for 1 of 60 frames"):
        reweighted_estimate(partly, None, synthetic.readout())


def test_sampled_temperatures_and_pressure_are_chosen(tmp_path: Path) -> None:
    """Ensembles that are left out have no say; a pressure that contradicts the traces has none either."""
    rng = np.random.default_rng(11)
    series = {t: oscillators(60, t, rng) for t in (300.0, *LADDER)}
    whole = write(tmp_path / "a.zarr", series)
    part = write(tmp_path / "b.zarr", {t: series[t] for t in LADDER})
    chosen = reweighted_estimate(whole, TARGETS, synthetic.readout(), sampled_temperatures_K=LADDER)
    alone = reweighted_estimate(part, TARGETS, synthetic.readout())
    assert chosen.attrs["sampled_temperatures_K"] == list(LADDER)
    for name in ("heat_capacity", "heat_capacity_sampling_err", "dos"):
        np.testing.assert_allclose(chosen[name], alone[name], rtol=1e-9)
    volumes = {t: 130 * np.exp(0.01 * rng.normal(size=60)) for t in LADDER}
    known = {"ensemble": "npt", "pressures_GPa": [2.0, 2.0, 2.0]}
    pressed = write(tmp_path / "c.zarr", {t: series[t] for t in LADDER}, metadata=known, volume_A3=volumes)
    with pytest.raises(SettingError, match="pressure_GPa=3 given, but the simulation had 2 GPa"):
        reweighted_estimate(pressed, None, synthetic.readout(), pressure_GPa=3.0)
    constant = {t: np.full(60, 100.0 + t) for t in LADDER}
    boxes = write(tmp_path / "d.zarr", {t: series[t] for t in LADDER}, volume_A3=constant)
    for pressure in (None, 0.0):
        with pytest.raises(SettingError, match=r"volumes from 500 to 676 A\^3, each constant"):
            reweighted_estimate(boxes, None, synthetic.readout(), pressure_GPa=pressure)


def test_command(tmp_path: Path, metal, metal_path: Path, aluminium, capsys) -> None:
    """`petdos analyze --reweight` writes the reweighted beside the plain estimate."""
    rng = np.random.default_rng(8)
    with Trace.open(tmp_path / "run.zarr", model=metal) as trace:
        for replica, temperature in enumerate((400.0, 500.0)):
            for step in range(20):
                atoms = aluminium.copy()
                # The potential of a spring for every atom: a Boltzmann distribution that can be drawn from.
                shift = rng.normal(scale=np.sqrt(BOLTZMANN_EV * temperature / 5.0), size=(8, 3))
                atoms.positions += shift
                energy = float(2.5 * (shift**2).sum())
                trace.append(
                    metal.evaluate(atoms), replica=replica, step=step, temperature_K=temperature, potential_energy_eV=energy
                )  # fmt: skip
    command = ["analyze", str(tmp_path / "run.zarr"), "-o", str(tmp_path / "out"), "--reweight=400,450"]
    assert main(command) == 0
    out = capsys.readouterr().out
    with (tmp_path / "out" / "reweighted.csv").open() as file:
        rows = list(csv.DictReader(file))
    reweighted, plain = reweighted_estimate(trace.path, [400.0, 450.0]), analyze(trace.path)
    assert [float(row["temperature (K)"]) for row in rows] == [400.0, 450.0]
    for i, row in enumerate(rows):
        assert float(row["heat_capacity (eV/K)"]) == float(reweighted["heat_capacity"][i])
        assert float(row["chemical_potential_sampling_err (eV)"]) == float(
            reweighted["chemical_potential_sampling_err"][i]
        )
    assert float(rows[0]["plain heat_capacity (eV/K)"]) == float(plain["heat_capacity"][0])
    assert rows[1]["plain heat_capacity (eV/K)"] == "nan"
    heat = float(reweighted["heat_capacity"][1]) / 8 / BOLTZMANN_EV
    shown = re.search(r"450 +([\d.]+) ± ([\d.]+) ± ", out)
    assert shown and float(shown[1]) == pytest.approx(heat, abs=0.06 * max(float(shown[2]), 1e-6) + 1e-4)
    assert (tmp_path / "out" / "heat_capacity_reweighted.png").stat().st_size > 10000
    for other in (["--denoise"], ["--align", "frames"]):
        assert main([*command, *other]) == 2
        assert "--reweight averages plain DOS" in capsys.readouterr().err
    assert main([*command[:-1], "--pressure", "1"]) == 2
    assert "--pressure is for --reweight" in capsys.readouterr().err
    assert main([*command[:-1], "--reweight=1e-300"]) == 2
    error = capsys.readouterr().err
    assert "no chemical potential at 1e-300 K" in error and error.count("\n") == 1
    # One choice of temperatures holds for both estimates.
    assert main([*command, "--temperature", "500", "--pressure", "1"]) == 0
    chosen = reweighted_estimate(trace.path, [400.0, 450.0], sampled_temperatures_K=[500.0])
    with (tmp_path / "out" / "reweighted.csv").open() as file:
        again = list(csv.DictReader(file))
    assert (
        float(again[0]["heat_capacity (eV/K)"])
        == float(chosen["heat_capacity"][0])
        != float(reweighted["heat_capacity"][0])
    )
    assert again[0]["plain heat_capacity (eV/K)"] == "nan"
