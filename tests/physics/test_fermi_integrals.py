"""Integrals with Fermi-Dirac functions against mpmath and closed forms."""

from __future__ import annotations

from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from helpers.densities import CASES, STEP, TEMPERATURES, constant, free_electrons, grid, rough

from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import ChemicalPotentialError
from petdos_md.physics import thermo


class Reference:
    """The integrals of one case at one temperature, with panels around ``mu``, which :meth:`solve` then refines."""

    def __init__(self, energies, dos, n_electrons: float, T: float, mu: float, neutral: bool, reach: float) -> None:
        self.e = [mp.mpf(float(v)) for v in energies]
        self.g = [mp.mpf(float(v)) for v in dos]
        self.slopes = [(self.g[i + 1] - self.g[i]) / (self.e[i + 1] - self.e[i]) for i in range(len(self.e) - 1)]
        self.kT = mp.mpf(BOLTZMANN_EV) * mp.mpf(T)
        self.mu = self.split = mp.mpf(float(mu))
        self.n_electrons = mp.mpf(n_electrons)
        if neutral:  # the number of electrons is that of the valence bands, not its rounded value
            self.n_electrons = self.step_integral(mp.mpf(_middle(energies, dos, n_electrons)), 0)
            assert abs(self.n_electrons / n_electrons - 1) < 1e-12
        self.excess = self.step_integral(self.split, 0) - self.n_electrons
        self.points = self.quadrature(45 * self.kT + reach)

    def quadrature(self, reach: mp.mpf) -> list:
        """(energy, weight times g) of all panels, those with g = 0 left out."""
        points = []
        for i, (a, b) in enumerate(pairwise(self.e)):
            if not (self.g[i] or self.g[i + 1]) or b < self.split - reach or a > self.split + reach:
                continue
            for start, stop in pairwise(sorted({a, b, self.split} if a < self.split < b else {a, b})):
                n = int(mp.ceil((stop - start) / (2 * self.kT)))
                half = (stop - start) / (2 * n)
                for k in range(n):
                    centre = start + (2 * k + 1) * half
                    if abs(centre - self.split) > reach + self.kT:
                        continue
                    for node, weight in RULE:
                        energy = centre + half * node
                        points.append((energy, half * weight * (self.g[i] + self.slopes[i] * (energy - a))))
        return points

    def step_integral(self, x: mp.mpf, power: int) -> mp.mpf:
        """int_{-inf}^x g E^power dE."""
        total = mp.mpf(0)
        for i, (a, b) in enumerate(pairwise(self.e)):
            if a < x and (self.g[i] or self.g[i + 1]):
                b = min(b, x)
                for c, p in ((self.g[i] - self.slopes[i] * a, power + 1), (self.slopes[i], power + 2)):
                    total += c * (b**p - a**p) / p
        return total

    def thermal(self) -> list:
        """N(mu, T) - N_cum(split), K_0 kT, and int g h((E - mu) / kT) dE of K_1, K_2, the entropy and the energy."""
        totals = [mp.mpf(0)] * 6
        for energy, weight in self.points:
            x = (energy - self.mu) / self.kT
            u = mp.exp(-abs(x))
            minority = u / (1 + u)  # f above mu, 1 - f below
            above = energy > self.split
            occupied = (minority if x > 0 else 1 - minority) if above else -(minority if x < 0 else 1 - minority)
            h = weight * minority / (1 + u)
            terms = (
                weight * occupied,
                h,
                h * x,
                h * x * x,
                weight * (abs(x) * minority + mp.log1p(u)),
                weight * occupied * x,
            )
            totals = [t + term for t, term in zip(totals, terms, strict=True)]
        return totals

    def solve(self) -> list:
        """Newton's correction of mu, of second order, then :meth:`thermal`."""
        n, k0, *_ = self.thermal()
        shift = -(self.excess + n) / k0 * self.kT
        assert abs(shift) < 1e-8 * self.kT
        self.mu += shift
        return self.thermal()

    def fermi_level(self) -> mp.mpf:
        below = mp.mpf(0)
        for i, (a, b) in enumerate(pairwise(self.e)):
            states = (b - a) * (self.g[i] + self.g[i + 1]) / 2
            if below + states >= self.n_electrons:
                missing, g, s = self.n_electrons - below, self.g[i], self.slopes[i]
                return a + 2 * missing / (g + mp.sqrt(g * g + 2 * s * missing))
            below += states
        raise AssertionError("too many electrons")


def _gauss_legendre(n: int) -> list:
    nodes = []
    for guess in np.polynomial.legendre.leggauss(n)[0]:
        x = mp.findroot(lambda t: mp.legendre(n, t), mp.mpf(guess))
        slope = n * (x * mp.legendre(n, x) - mp.legendre(n - 1, x)) / (x * x - 1)
        nodes.append((x, 2 / ((1 - x * x) * slope**2)))
    return nodes


with mp.workdps(30):
    RULE = _gauss_legendre(10)


def _middle(energies: np.ndarray, dos: np.ndarray, n_electrons: float) -> float:
    """The grid point with the lowest DOS among those below which the electrons fit to 1e-10."""
    below = np.concatenate([[0], np.cumsum(dos[1:] + dos[:-1]) * STEP / 2])
    points = np.flatnonzero(np.abs(below / n_electrons - 1) < 1e-10)
    return float(energies[points[dos[points].argmin()]])


@pytest.mark.parametrize("name", CASES)
def test_against_mpmath_from_10_to_50000_K(name):
    energies, dos, n_electrons, neutral = CASES[name]()
    T = np.array(TEMPERATURES)
    if name == "free_electrons":
        T = T[:-1]  # at 50 000 K the chemical potential of free electrons lies far below the band
    if name == "smeared_gap":
        # At 100 and 300 K, with fewer carriers than the last digit of the electron number, neutrality still fixes mu.
        T = T[2:]
    arguments = (energies, dos, n_electrons)
    level = thermo.fermi_level(*arguments)
    mu = thermo.chemical_potential(*arguments, T)
    C, S, dU, U = (
        f(*arguments, T) for f in (thermo.heat_capacity, thermo.entropy, thermo.thermal_energy, thermo.internal_energy)
    )
    np.testing.assert_allclose(thermo.electron_number(energies, dos, mu, T), n_electrons, rtol=1e-11)
    for i, temperature in enumerate(T):
        with mp.workdps(45):
            reach = {"two_levels": 0.75, "gapped": 0.7, "smeared_gap": 1.6}.get(name, 0.0)
            ref = Reference(*arguments, temperature, mu[i], neutral, reach)
            _, k0, k1, k2, entropy, energy = ref.solve()
            heat = k2 - k1 * k1 / k0
            exact = ref.mu
            e_f = mp.mpf(float(level)) if neutral else ref.fermi_level()
            ground = ref.step_integral(e_f, 1)
            # int g E (f - theta(E_F - E)), with the step function moved from the split to E_F
            moved = [ref.step_integral(ref.split, p) - ref.step_integral(e_f, p) for p in (0, 1)]
            excess = energy * ref.kT + moved[1] - exact * moved[0]
        assert float(abs(level - e_f)) < 1e-13 * max(1, n_electrons)
        assert float(abs(mu[i] - exact)) < 1e-9 * ref.kT
        # Where kT is many grid steps, second differences cancel as (step / kT)^2: what is left of the last digits depends on the
        # processor's exp (AVX2 8e-10, AVX-512 1.3e-9 for two levels at 50 000 K).
        digits = max(1e-9, 5e-13 * (BOLTZMANN_EV * temperature / STEP) ** 2)
        assert C[i] == pytest.approx(BOLTZMANN_EV * float(heat), rel=digits, abs=1e-300)
        assert S[i] == pytest.approx(BOLTZMANN_EV * float(entropy), rel=1e-9, abs=1e-300)
        assert dU[i] == pytest.approx(float(excess), rel=1e-9, abs=1e-300)
        assert U[i] == pytest.approx(float(ground + excess), rel=1e-10, abs=1e-10 * n_electrons)


def test_constant_dos_closed_forms():
    """Far from the band edges Sommerfeld's first term is exact; near them mu has a closed form."""
    energies, dos, _, _ = constant()
    T = np.array(TEMPERATURES[:5])
    C = np.pi**2 / 3 * BOLTZMANN_EV**2 * T * 2.0
    np.testing.assert_allclose(thermo.heat_capacity(energies, dos, 8.0, T), C, rtol=1e-12)
    np.testing.assert_allclose(thermo.entropy(energies, dos, 8.0, T), C, rtol=1e-12)
    np.testing.assert_allclose(thermo.thermal_energy(energies, dos, 8.0, T), C * T / 2, rtol=1e-12)
    np.testing.assert_allclose(thermo.chemical_potential(energies, dos, 8.0, T), -1.0, rtol=1e-13)

    for T in (300.0, 10_000.0, 50_000.0):
        for n_electrons in (1e-3, 3.0, 19.99):
            kT = mp.mpf(BOLTZMANN_EV) * T
            q = mp.exp(mp.mpf(n_electrons) / (2 * kT))
            mu = -5 + kT * mp.log((q - 1) / (1 - q * mp.exp(-10 / kT)))
            if -5 < mu < 5:
                assert thermo.chemical_potential(energies, dos, n_electrons, T) == pytest.approx(float(mu), rel=1e-10)
            else:
                with pytest.raises(ChemicalPotentialError):
                    thermo.chemical_potential(energies, dos, n_electrons, T)


def test_free_electrons_within_interpolation_error():
    """The true sqrt(E) law by Fermi-Dirac integrals F_j = -Gamma(j + 1) Li_{j+1}(-exp(mu / kT))."""
    energies, dos, n_electrons, _ = free_electrons()
    # The chord of sqrt(E) misses -zeta(-1/2) STEP^(3/2) = 0.208 STEP^(3/2) states at the band edge.
    lost = 0.208 * STEP**1.5 / np.sqrt(5.0)
    for T in (1000.0, 10_000.0):
        kT = mp.mpf(BOLTZMANN_EV) * T

        def fd(j, eta):
            return mp.quad(lambda t: t**j / (1 + mp.exp(t - eta)), [0, eta / 2, eta, eta + 10, eta + 60])

        with mp.workdps(15):
            eta = mp.findroot(lambda y, kT=kT: 1.3 * kT**1.5 * fd(mp.mpf(0.5), y) - n_electrons, (4.9 / kT, 5.0 / kT))
            assert thermo.chemical_potential(energies, dos, n_electrons, T) == pytest.approx(
                float(eta * kT), abs=1.1 * lost
            )
            U = 1.3 * kT**2.5 * fd(mp.mpf(1.5), eta)
        assert thermo.internal_energy(energies, dos, n_electrons, T) == pytest.approx(float(U), rel=1e-3)
    assert thermo.fermi_level(energies, dos, n_electrons) == pytest.approx(5.0, abs=1.1 * lost)
    C = np.pi**2 / 3 * BOLTZMANN_EV**2 * 300 * 1.3 * np.sqrt(5.0)
    assert thermo.heat_capacity(energies, dos, n_electrons, 300.0) == pytest.approx(C, rel=1e-3)


def test_two_narrow_levels_are_a_two_level_system():
    e = grid(-4, 4)
    dos = np.zeros(len(e))
    dos[60] = dos[100] = 2 / STEP  # at -1 and 1 eV
    for T in (3000.0, 10_000.0, 50_000.0):
        kT = BOLTZMANN_EV * T
        C = 2 * BOLTZMANN_EV * (1 / kT) ** 2 / (2 * np.cosh(1 / (2 * kT)) ** 2)
        width = (STEP / kT) ** 2 + STEP**2  # the variance of a triangle is STEP^2 / 6
        assert thermo.heat_capacity(e, dos, 2.0, T) == pytest.approx(C, rel=width)
        # Digits are lost as (kT / step)^2, see petdos_md.physics.fermi_integrals.
        digits = max(1e-12, 2e-15 * kT * (kT / STEP) ** 2)
        assert thermo.chemical_potential(e, dos, 2.0, T) == pytest.approx(0.0, abs=digits)
    cold = thermo.heat_capacity(e, dos, 2.0, [1.0, 10.0])
    assert np.all(cold == 0)  # exp(-1160) is not a float64
    assert thermo.chemical_potential(e, dos, 2.0, 10.0) == pytest.approx(0.0, abs=1e-12)


def test_uneven_grid_describes_the_same_function():
    """Points added on the straight pieces change nothing."""
    energies, dos, n_electrons, _ = rough()
    rng = np.random.default_rng(2)
    extra = np.sort(np.concatenate([energies, rng.uniform(energies[0], energies[-1], 57)]))
    T = np.array([30.0, 300.0, 3000.0])
    for f in (thermo.chemical_potential, thermo.heat_capacity, thermo.entropy, thermo.thermal_energy):
        expected = f(energies, dos, n_electrons, T)
        np.testing.assert_allclose(f(extra, np.interp(extra, energies, dos), n_electrons, T), expected, rtol=1e-9)
