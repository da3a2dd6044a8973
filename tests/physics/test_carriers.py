"""Thermodynamics over temperature, units, carriers and weights against closed forms and quadrature."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.constants as sc
from helpers.synthetic import FINGERPRINT, GRID, N_ATOMS, N_ELECTRONS, N_MEMBERS, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.reliability import effective_sample_size
from petdos_md.analysis.statistics import standard_error
from petdos_md.analysis.weights import FrameWeights, boltzmann_weights
from petdos_md.base.errors import SettingError, StructureError
from petdos_md.models.readout import Readout
from petdos_md.physics import thermo
from petdos_md.physics.carriers import carriers
from petdos_md.physics.curves import sommerfeld_gamma, thermodynamics
from petdos_md.physics.quantities import kernels
from petdos_md.results.normalization import convert, in_units
from petdos_md.results.report import write_report

E = GRID.energies
K = 8.617333262145179e-5


def mean_features(n: int = 20) -> np.ndarray:
    return np.mean([s.features for s in samples(n, seed=4, temperature_K=300.0)], axis=0)


class TestThermodynamics:
    def test_members_over_a_range_of_temperatures(self) -> None:
        members = readout().members(mean_features())
        t = np.geomspace(100, 20000, 16)
        curve = thermodynamics(E, members, N_ELECTRONS, t, n_atoms=N_ATOMS)
        for j in (0, 7, 15):
            heat = np.array([float(thermo.heat_capacity(E, m, N_ELECTRONS, t[j])) for m in members])
            free = np.array([float(thermo.free_energy(E, m, N_ELECTRONS, t[j])) for m in members])
            assert float(curve["heat_capacity"][j]) == pytest.approx(heat.mean(), rel=1e-12)
            assert float(curve["heat_capacity_model_std"][j]) == pytest.approx(heat.std(ddof=1), rel=1e-9)
            assert float(curve["free_energy"][j]) == pytest.approx(free.mean(), rel=1e-12)
            np.testing.assert_allclose(curve["heat_capacity_members"][j], heat, rtol=1e-12)
        assert curve["heat_capacity_members"].shape == (16, N_MEMBERS)
        one = thermodynamics(E, members[0], N_ELECTRONS, t)
        assert "heat_capacity_model_std" not in one

    def test_relations_between_the_quantities(self) -> None:
        """S = -dF/dT and C = T dS/dT, by finite differences of the curve itself."""
        t = 900.0 + np.array([-0.5, 0.0, 0.5])
        curve = thermodynamics(E, readout().dos(mean_features()), N_ELECTRONS, t)
        f, s = curve["free_energy"].values, curve["entropy"].values
        assert -(f[2] - f[0]) == pytest.approx(s[1], rel=1e-6)
        assert 900.0 * (s[2] - s[0]) == pytest.approx(float(curve["heat_capacity"][1]), rel=1e-6)

    def test_sommerfeld_gamma_is_the_slope_at_zero(self) -> None:
        dos = readout().dos(mean_features())
        gamma = float(sommerfeld_gamma(E, dos, N_ELECTRONS))
        assert float(thermo.heat_capacity(E, dos, N_ELECTRONS, 5.0)) / 5.0 == pytest.approx(gamma, rel=1e-3)
        curve = thermodynamics(E, dos, N_ELECTRONS, [300.0])
        assert float(curve["sommerfeld_gamma"][0]) == pytest.approx(gamma, rel=1e-12)
        assert gamma == pytest.approx(np.pi**2 / 3 * K**2 * np.interp(curve["fermi_level"][0], E, dos), rel=1e-12)

    def test_free_electrons(self) -> None:
        """gamma of a free-electron gas of aluminium's density: 0.912 mJ/mol/K^2 (Ashcroft and Mermin, Table 2.3)."""
        volume, fine = 3 * 5.53, np.linspace(0, 30, 60001)  # r_s = 2.07: 1 electron in 5.53 A^3
        prefactor = volume / (2 * np.pi**2) * (2 * sc.m_e / sc.hbar**2) ** 1.5 * sc.e**1.5 * 1e-30
        gamma = float(sommerfeld_gamma(fine, prefactor * np.sqrt(fine), 3.0))
        assert convert(gamma, "eV/K^2", "mol", 1) == pytest.approx(0.912, rel=0.01)

    def test_kernel_of_gamma(self) -> None:
        dos = readout().dos(mean_features())
        kernel = kernels(E, dos, N_ELECTRONS, 500.0, ["sommerfeld_gamma", "dos_at_fermi_level"])
        change = 1e-5 * np.exp(-((E + 0.4) ** 2))
        for name, function in (
            ("sommerfeld_gamma", sommerfeld_gamma),
            ("dos_at_fermi_level", thermo.dos_at_fermi_level),
        ):
            difference = (function(E, dos + change, N_ELECTRONS) - function(E, dos - change, N_ELECTRONS)) / 2
            assert kernel[name] @ change == pytest.approx(float(difference), rel=1e-5)


class TestUnits:
    def test_molar_gas_constant(self) -> None:
        assert convert(K, "eV/K", "mol", 1) == pytest.approx(sc.R, rel=1e-12)
        assert convert(6 * K, "eV/K", "kB", 2) == pytest.approx(3.0, rel=1e-12)
        assert convert(2.0, "eV", "atom", 4) == 0.5
        with pytest.raises(SettingError, match="got the normalization 'kg', expected one of cell, atom, mol, kB"):
            convert(1.0, "eV", "kg", 1)

    def test_every_extensive_variable_and_its_errors(self, tmp_path: Path) -> None:
        data = analyze(write(tmp_path / "a.zarr", samples(40, seed=1, temperature_K=600.0)), readout())
        mol = in_units(data, "mol")
        for ending in ("", "_model_std", "_sampling_err"):
            name = f"heat_capacity{ending}"
            assert mol[name].attrs["units"] == "J/mol/K"
            assert float(mol[name][0]) == pytest.approx(float(data[name][0]) / N_ATOMS / K * sc.R, rel=1e-9)
        assert mol["sommerfeld_gamma"].attrs["units"] == "mJ/mol/K^2"
        assert mol["dos"].attrs["units"] == "states/eV/atom" and mol["dos"].dims == data["dos"].dims
        for name in ("chemical_potential", "fermi_level", "gap", "n_atoms"):  # of no normalization
            assert mol[name].attrs == data[name].attrs and float(mol[name][0]) == float(data[name][0])
        assert in_units(data, "cell") is data
        write_report(data, tmp_path / "out", plots=False, normalization="kB")
        row = next(csv.DictReader((tmp_path / "out/thermo.csv").open()))
        assert float(row["heat_capacity (k_B/atom)"]) == pytest.approx(
            float(data["heat_capacity"][0]) / N_ATOMS / K, rel=1e-7
        )
        assert json.loads((tmp_path / "out/summary.json").read_text())["units"]["entropy"] == "k_B/atom"


def gapped(middle: float = 0.0) -> np.ndarray:
    """Two bands with a gap of 0.8 eV between them, without tails; flat at the edges."""
    return np.interp(E - middle, [-6, -5, -0.41, -0.4, 0.4, 0.41, 6, 7], [0, 6, 6, 0, 0, 9, 9, 0])


class TestCarriers:
    def test_against_high_precision_quadrature(self) -> None:
        dos, t = gapped(0.013), 700.0
        n_electrons = float(np.trapezoid(dos[E <= 0], E[E <= 0]))
        n, p = carriers(E, dos, n_electrons, t, n_atoms=4)
        mu, level = (
            float(f)
            for f in (thermo.chemical_potential(E, dos, n_electrons, t), thermo.fermi_level(E, dos, n_electrons))
        )
        mpmath.mp.dps = 30
        total = {True: mpmath.mpf(0), False: mpmath.mpf(0)}

        def occupied(x: float, i: int, sign: int) -> float:
            g = dos[i] + (dos[i + 1] - dos[i]) * (x - E[i]) / (E[i + 1] - E[i])
            return g / (1 + mpmath.exp(sign * (x - mu) / (K * t)))

        for i in np.flatnonzero(dos[1:] + dos[:-1] > 0):
            sign = 1 if E[i] >= level else -1
            total[sign > 0] += mpmath.quad(partial(occupied, i=int(i), sign=sign), [E[i], E[i + 1]])
        assert float(n) == pytest.approx(float(total[True]), rel=1e-8)
        assert float(p) == pytest.approx(float(total[False]), rel=1e-8)
        assert float(n) == pytest.approx(float(p), rel=1e-6) and 0 < float(n) < 0.1  # neutral

    def test_law_of_mass_action(self) -> None:
        """n p = P_c P_v exp(-gap / kT) far from the edges: the slope of ln(np) over 1/T is the gap."""
        dos = gapped()
        n_electrons = float(np.trapezoid(dos[E <= 0], E[E <= 0]))
        t = np.array([200.0, 210.0])
        n, p = carriers(E, dos, n_electrons, t, n_atoms=4)
        slope = -np.diff(np.log(n * p / t**2))[0] / np.diff(1 / (K * t))[0]
        assert slope == pytest.approx(0.8, abs=0.03)

    def test_in_an_analysis(self, tmp_path: Path) -> None:
        dos = gapped()
        n_electrons = float(np.trapezoid(dos[E <= 0], E[E <= 0]))
        weights = np.stack([*np.zeros((3, GRID.n)), dos / N_ATOMS, np.zeros(GRID.n)], axis=1)
        frames = [replace(s, n_electrons=n_electrons) for s in samples(10, seed=1, temperature_K=700.0)]
        trace = write(tmp_path / "a.zarr", frames)
        data = analyze(trace, Readout.from_arrays(GRID, weights, None, FINGERPRINT), carriers=True)
        n, _ = carriers(E, dos, n_electrons, 700.0, n_atoms=N_ATOMS)
        assert float(data["conduction_electrons"][0]) == pytest.approx(float(n), rel=1e-5)
        assert float(data["holes_density"][0]) == pytest.approx(float(n) / float(data["volume"][0]) * 1e24, rel=1e-4)

    def test_a_metal_has_none(self, tmp_path: Path) -> None:
        trace = write(tmp_path / "a.zarr", samples(5, seed=1, temperature_K=300.0))
        with pytest.raises(
            StructureError, match=r"^300 K: carriers are counted in a gap, but the DOS .* this is a metal"
        ):
            analyze(trace, readout(), carriers=True)
        flat = np.full(len(E), 2.0)  # states/eV of 4 atoms
        with pytest.raises(StructureError, match=r"is 0\.5 states/eV/atom \(a gap has less than 0\.1\)"):
            carriers(E, flat, 10.0, 300.0, n_atoms=4)


class TestWeights:
    def test_reweighting_equals_a_weighted_mean(self, tmp_path: Path) -> None:
        frames = samples(30, seed=6, temperature_K=900.0)
        bias = np.random.default_rng(1).uniform(0, 0.3, 30)
        w = boltzmann_weights(bias, 900.0)
        np.testing.assert_allclose(w[1] / w[0], np.exp((bias[1] - bias[0]) / (K * 900)), rtol=1e-12)
        table = tmp_path / "w.csv"
        lines = [f"{s.step},{b / (K * 900)!r}" for s, b in zip(frames, bias.tolist(), strict=True)]
        table.write_text("\n".join(["step,log_weight", *reversed(lines)]))
        trace = write(tmp_path / "a.zarr", frames)
        data = analyze(trace, readout(), weights=table, reference="raw")
        features = np.array([s.features for s in frames], dtype=float)
        mean = readout().dos(w @ features / w.sum())
        np.testing.assert_allclose(data["dos"][0], mean, rtol=1e-10, atol=1e-12)
        ess = w.sum() ** 2 / (w**2).sum()
        assert float(data["effective_sample_size"][0]) == pytest.approx(ess, rel=1e-9) == effective_sample_size(w)
        kernel = kernels(E, mean, N_ELECTRONS, 900.0, ["heat_capacity"])["heat_capacity"]
        error = standard_error(readout().dos(features) @ kernel, w).error
        assert float(data["heat_capacity_sampling_err"][0]) == pytest.approx(float(error), rel=1e-6)
        assert any("weights differ so much that 30 frames count as" in note for note in data.attrs["notes"])
        # the trace's own weights are left alone
        assert float(analyze(trace, readout())["effective_sample_size"][0]) != pytest.approx(ess, rel=1e-3)

    def test_equal_weights_count_every_frame(self) -> None:
        assert effective_sample_size(np.full(7, 0.3)) == pytest.approx(7.0, rel=1e-12)

    def test_each_row_counts_by_itself_at_any_scale(self) -> None:
        """By hand: 10^2 / 30 of the weights 1, 2, 3, 4, whose squares vanish if all are 1e-200 times that."""
        rows = np.array(
            [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0], [1.0, 2.0, 3.0, 4.0], [1e-200, 2e-200, 3e-200, 4e-200]]
        )
        np.testing.assert_allclose(effective_sample_size(rows), [4.0, 1.0, 10.0 / 3.0, 10.0 / 3.0], rtol=1e-12)

    @pytest.mark.parametrize(
        "text, message",
        [
            ("step weight\n0 0\n10 0\n20 0", "all weights at 300 K are zero"),
            ("step weight\n0 1\n10 1", r"no weight for step 20 \(replica 0\) of \S+a.zarr, expected"),
            ("step weight\n0 1\n10 -1\n20 1", "weight -1.0 of step 10"),
            ("step weight\n0 1\n10 nan\n20 1", "weight nan of step 10"),
            ("step weight\n0 1\n0 1\n20 1", r"step 0 \(replica 0\) is listed twice"),
            ("frame w\n0 1", "expected a header with step and weight"),
            ("step weight\n0 a", "not a table of numbers"),
            ("", "expected a header with step and weight"),
        ],
    )
    def test_bad_tables(self, tmp_path: Path, text: str, message: str) -> None:
        trace = write(tmp_path / "a.zarr", samples(3, seed=1, temperature_K=300.0))
        (tmp_path / "w.txt").write_text(text)
        with pytest.raises(SettingError, match=message):
            analyze(trace, readout(), weights=tmp_path / "w.txt")

    def test_replicas_have_weights_of_their_own(self, tmp_path: Path) -> None:
        (tmp_path / "w.txt").write_text("# replica step weight\n0 0 1\n1 0 3\n")
        weights = FrameWeights.read(tmp_path / "w.txt")
        assert weights.weights_of(np.array([1, 0]), np.array([0, 0])).tolist() == [3.0, 1.0]
        with pytest.raises(SettingError, match="no such table"):
            FrameWeights.read(tmp_path / "none.txt")
        with pytest.raises(SettingError, match="bias that is not finite"):
            boltzmann_weights(np.array([0.0, np.nan]), 300.0)
