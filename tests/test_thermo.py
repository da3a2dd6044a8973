"""Thermodynamics of piecewise linear densities of states against mpmath, closed forms and brute force."""

from __future__ import annotations

import doctest
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest

from petdos_md import entries, fermi_integrals, filling, thermo
from petdos_md.errors import ChemicalPotentialError
from petdos_md.thermo import BOLTZMANN_EV

STEP = 0.05
TEMPERATURES = [10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0, 50_000.0]


# --- densities of states: name -> (energies, dos, n_electrons, neutral) -------------------------------------------------


def grid(start: float, stop: float) -> np.ndarray:
    return start + STEP * np.arange(round((stop - start) / STEP) + 1)


def constant() -> tuple:
    e = grid(-5, 5)
    return e, np.full(len(e), 2.0), 8.7, False


def free_electrons() -> tuple:
    e = grid(-0.5, 15)
    return e, 1.3 * np.sqrt(np.clip(e, 0, None)), 1.3 * 2 / 3 * 5.0**1.5, False


def two_levels() -> tuple:
    e = grid(-4, 4)
    dos = np.zeros(len(e))
    dos[60], dos[90] = 2 / STEP, 3 / STEP  # triangles at -1.0 and 0.5 eV with 2 and 3 states
    return e, dos, 2.0, True


def gapped() -> tuple:
    e = grid(-4, 5)
    dos = 3 * np.sqrt(np.clip(-0.45 - e, 0, None)) + 1.7 * np.sqrt(np.clip(e - 0.55, 0, None)) * (2 + np.sin(3 * e))
    return e, dos, float(np.sum((dos[1:] + dos[:-1])[: round(4 / STEP)]) * STEP / 2), True


def smeared_gap() -> tuple:
    """Gaussians whose tails meet at 1e-20 of their height in the gap."""
    e = grid(-3, 3)
    dos = sum(np.exp(-0.5 * ((e - c) / 0.15) ** 2) for c in (-1.4, 1.4))
    return e, dos, float(np.sum(dos[1:] + dos[:-1]) * STEP / 4), True


def rough() -> tuple:
    e = grid(-6, 6)
    return e, np.abs(np.cumsum(np.random.default_rng(0).normal(size=len(e)))) + 0.05, 30.0, False


CASES = {f.__name__: f for f in (constant, free_electrons, two_levels, gapped, smeared_gap, rough)}


# --- the reference: 30 digits, Gauss-Legendre panels of at most 2 kT on each linear piece ---------------------------------


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


@pytest.mark.parametrize("name", CASES)
def test_thermodynamic_identities(name):
    energies, dos, n_electrons, _ = CASES[name]()
    T = np.array(TEMPERATURES[3:-1])
    args = (energies, dos, n_electrons)
    U, S, F = (f(*args, T) for f in (thermo.internal_energy, thermo.entropy, thermo.free_energy))
    np.testing.assert_allclose(F, U - T * S, rtol=1e-13, atol=1e-13)
    C = thermo.heat_capacity(*args, T)
    np.testing.assert_allclose(thermo.heat_capacity_finite_difference(*args, T), C, rtol=2e-3)
    np.testing.assert_allclose(thermo.heat_capacity_finite_difference(*args, T, delta_K=T * 1e-4), C, rtol=2e-5)
    h = T * 1e-4
    np.testing.assert_allclose(
        T * (thermo.entropy(*args, T + h) - thermo.entropy(*args, T - h)) / (2 * h), C, rtol=2e-5
    )
    np.testing.assert_allclose(
        -(thermo.free_energy(*args, T + h) - thermo.free_energy(*args, T - h)) / (2 * h), S, rtol=1e-4, atol=1e-11
    )
    K0, K1, K2 = thermo.moments(*args, T)
    np.testing.assert_allclose(C, (K2 - K1**2 / K0) / T, rtol=1e-8)


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
        # Digits are lost as (kT / step)^2, see petdos_md.fermi_integrals.
        digits = max(1e-12, 2e-15 * kT * (kT / STEP) ** 2)
        assert thermo.chemical_potential(e, dos, 2.0, T) == pytest.approx(0.0, abs=digits)
    cold = thermo.heat_capacity(e, dos, 2.0, [1.0, 10.0])
    assert np.all(cold == 0)  # exp(-1160) is not a float64
    assert thermo.chemical_potential(e, dos, 2.0, 10.0) == pytest.approx(0.0, abs=1e-12)


def test_chemical_potential_in_a_gap_is_that_of_boltzmann_tails():
    energies, dos, n_electrons, _ = two_levels()
    # 2 and 3 states, one triangle each: mu = (E_v + E_c)/2 + kT/2 ln(2/3) for kT << gap, whatever the triangles' width
    T = np.array([5.0, 20.0, 60.0, 150.0, 400.0])
    expected = -0.25 + BOLTZMANN_EV * T / 2 * np.log(2 / 3)
    np.testing.assert_allclose(thermo.chemical_potential(energies, dos, n_electrons, T), expected, rtol=1e-8)
    assert thermo.fermi_level(energies, dos, n_electrons) == pytest.approx(-0.25, abs=1e-14)
    # Rounding of the electron number is not doping.
    for residue in (1e-15, -1e-13, 9e-11, -9e-11):
        noisy = thermo.chemical_potential(energies, dos, n_electrons * (1 + residue), T)
        np.testing.assert_allclose(noisy, expected, rtol=1e-8)
    # A real excess is: mu then sits at the band.
    assert thermo.chemical_potential(energies, dos, n_electrons * (1 + 1e-8), 20.0) > 0.4
    assert thermo.chemical_potential(energies, dos, n_electrons * (1 - 1e-8), 20.0) < -0.9


def test_heat_capacity_of_a_gap_falls_as_exp_minus_half_gap():
    energies, dos, n_electrons, _ = two_levels()
    low, high = thermo.heat_capacity(energies, dos, n_electrons, [12.0, 12.5])
    assert 0 < low < 1e-300 or low == 0 or low < high
    low, high = thermo.heat_capacity(energies, dos, n_electrons, [40.0, 41.0])
    inner = 1.4  # the inner edges of the triangles dominate: 1.5 eV less one step each
    rate = np.log(high / low) / (1 / (BOLTZMANN_EV * 40) - 1 / (BOLTZMANN_EV * 41))
    assert rate == pytest.approx(inner / 2, rel=0.01)


def test_fermi_level_is_the_limit_of_the_chemical_potential():
    for name, case in CASES.items():
        energies, dos, n_electrons, _ = case()
        level = thermo.fermi_level(energies, dos, n_electrons)
        mu = thermo.chemical_potential(energies, dos, n_electrons, 1.0)
        assert mu == pytest.approx(float(level), abs=3 * BOLTZMANN_EV), name
        below = np.interp(level, energies, np.concatenate([[0], np.cumsum(dos[1:] + dos[:-1]) * STEP / 2]))
        assert below == pytest.approx(n_electrons, abs=STEP * np.abs(np.diff(dos)).max() / 8), name
        assert thermo.dos_at_fermi_level(energies, dos, n_electrons) == pytest.approx(
            np.interp(level, energies, dos), abs=1e-12
        )


def test_broadcasting_equals_loops():
    rng = np.random.default_rng(1)
    energies, dos, _, _ = rough()
    members = np.abs(dos + 0.2 * rng.normal(size=(70, 1, len(dos))))  # more than one block of rows
    T = np.array([50.0, 500.0, 5000.0])
    n_electrons = np.linspace(28, 34, 70)[:, None]
    functions = [thermo.chemical_potential, thermo.heat_capacity, thermo.entropy, thermo.internal_energy]
    for f in functions:
        together = f(energies, members, n_electrons, T)
        assert together.shape == (70, 3)
        for i in (0, 33, 63, 64, 69):
            for j in range(3):
                alone = f(energies, members[i, 0], n_electrons[i, 0], T[j])
                assert alone.shape == ()
                assert together[i, j] == pytest.approx(float(alone), rel=1e-13)
    mu = thermo.chemical_potential(energies, members, n_electrons, T)
    for f in functions[1:]:
        np.testing.assert_allclose(f(energies, members, n_electrons, T, mu=mu), f(energies, members, n_electrons, T))
    per_temperature = thermo.chemical_potential(energies, members[0, 0], np.array([28.0, 29.0, 30.0]), T)
    for j in range(3):
        assert per_temperature[j] == pytest.approx(
            float(thermo.chemical_potential(energies, members[0, 0], 28.0 + j, T[j])), rel=1e-13
        )
    assert thermo.heat_capacity_kernel(energies, members[:2], n_electrons[:2], T).shape == (2, 3, len(energies))
    assert thermo.fermi_level(energies, members, n_electrons).shape == (70, 1)


def test_uneven_grid_describes_the_same_function():
    """Points added on the straight pieces change nothing."""
    energies, dos, n_electrons, _ = rough()
    rng = np.random.default_rng(2)
    extra = np.sort(np.concatenate([energies, rng.uniform(energies[0], energies[-1], 57)]))
    T = np.array([30.0, 300.0, 3000.0])
    for f in (thermo.chemical_potential, thermo.heat_capacity, thermo.entropy, thermo.thermal_energy):
        expected = f(energies, dos, n_electrons, T)
        np.testing.assert_allclose(f(extra, np.interp(extra, energies, dos), n_electrons, T), expected, rtol=1e-9)


def test_result_moves_with_the_energy_reference():
    energies, dos, n_electrons, _ = rough()
    T = np.array([30.0, 3000.0])
    np.testing.assert_allclose(
        thermo.chemical_potential(energies + 7, dos, n_electrons, T),
        thermo.chemical_potential(energies, dos, n_electrons, T) + 7,
        rtol=1e-12,
    )
    for f in (thermo.heat_capacity, thermo.entropy, thermo.thermal_energy):
        np.testing.assert_allclose(f(energies + 7, dos, n_electrons, T), f(energies, dos, n_electrons, T), rtol=1e-9)


# --- negative dips -----------------------------------------------------------------------------------------------------


def rippled(amplitude: float, seed: int) -> tuple:
    """A gap with ripples and the number of electrons of the clean valence band."""
    energies, dos, n_electrons, _ = gapped()
    ripples = np.random.default_rng(seed).normal(size=len(energies))
    return energies, dos + amplitude * ripples * (np.abs(energies - 0.05) < 0.6), n_electrons


def rising_roots(energies, dos, n_electrons, T) -> np.ndarray:
    mu = np.arange(-1.5, 1.5, 0.0005)
    excess = thermo.electron_number(energies, dos, mu, T) - n_electrons
    return mu[:-1][(excess[:-1] < 0) & (excess[1:] >= 0)] + 0.00025


@pytest.mark.parametrize("T", [30.0, 300.0, 2000.0])
@pytest.mark.parametrize("amplitude", [1e-6, 1e-3, 0.03])
def test_root_in_a_rippled_gap_is_the_stable_one_reached_from_the_fermi_level(amplitude, T):
    several = 0
    for seed in range(12):
        energies, dos, n_electrons = rippled(amplitude, seed)
        mu = float(thermo.chemical_potential(energies, dos, n_electrons, T))
        assert thermo.electron_number(energies, dos, mu, T) == pytest.approx(n_electrons, rel=1e-12)
        level = float(thermo.fermi_level(energies, dos, n_electrons))
        roots = rising_roots(energies, dos, n_electrons, T)
        several += len(roots) > 1
        assert np.abs(roots - mu).min() < 0.001
        at_level = float(thermo.electron_number(energies, dos, level, T)) - n_electrons
        walk = roots[roots >= level - 0.001].min() if at_level < 0 else roots[roots <= level + 0.001].max()
        assert mu == pytest.approx(walk, abs=0.001)
        K0, _, K2 = thermo.moments(energies, dos, n_electrons, T)
        assert K0 >= 0
        C = float(thermo.heat_capacity(energies, dos, n_electrons, T))
        assert 0 <= C <= max(K2 / T, 0)
    if T == 30.0:
        assert several  # else the test says nothing


def test_fermi_level_in_ripples_is_a_rising_root_near_the_middle():
    """Brute force: the rising roots of the T = 0 count on a fine axis."""
    for seed in range(40):
        energies, dos, n_electrons = rippled(0.01, seed)
        fine = np.linspace(-1.2, 1.2, 48_001)
        count = np.interp(fine, energies, dos)
        below = np.concatenate([[0], np.cumsum(count[1:] + count[:-1]) * (fine[1] - fine[0]) / 2])
        start = np.trapezoid(dos[energies <= -1.2 + 1e-9], dx=STEP)
        excess = below + start - n_electrons
        roots = fine[1:][(excess[:-1] < 0) & (excess[1:] >= 0)]
        level = float(thermo.fermi_level(energies, dos, n_electrons))
        middle = (roots[0] + roots[-1]) / 2
        missing = np.interp(middle, fine, excess) < 0
        assert level == pytest.approx(min(roots[roots >= middle]) if missing else max(roots[roots <= middle]), abs=2e-4)


def test_small_ripples_leave_the_chemical_potential_of_the_clean_gap():
    energies, dos, n_electrons, _ = gapped()
    clean = thermo.chemical_potential(energies, dos, n_electrons, [1000.0, 3000.0])
    C = thermo.heat_capacity(energies, dos, n_electrons, [1000.0, 3000.0])
    previous = np.inf
    for amplitude in (1e-3, 1e-5, 1e-7):
        noisy = [rippled(amplitude, seed) for seed in range(10)]
        error = max(np.abs(thermo.chemical_potential(*args, [1000.0, 3000.0]) - clean).max() for args in noisy)
        assert error < 0.3 * previous
        previous = error
        worst = max(np.abs(thermo.heat_capacity(*args, [1000.0, 3000.0]) - C).max() for args in noisy)
        assert worst < 5e3 * BOLTZMANN_EV * amplitude
    assert previous < 1e-5


def test_errors_of_members_stay_bounded_in_a_rippled_gap():
    """At 300 K the bare formula gives members beyond any physical value; the rule keeps all within (0, K_2 / T)."""
    energies, dos, n_electrons, _ = gapped()
    ripples = np.random.default_rng(3).normal(size=(400, len(energies)))
    members = dos + 0.02 * ripples
    C = thermo.heat_capacity(energies, members, n_electrons, 300.0)
    K0, K1, K2 = thermo.moments(energies, members, n_electrons, 300.0)
    assert np.all((C >= 0) & (np.maximum(K2, 0) / 300 >= C))
    metal = np.pi**2 / 3 * BOLTZMANN_EV**2 * 300  # of 1 state/eV
    assert C.max() < metal
    with np.errstate(all="ignore"):
        bare = (K2 - K1**2 / K0) / 300
    assert np.nanmin(bare) < 0
    kernel = thermo.heat_capacity_kernel(energies, members[bare < 0], n_electrons, 300.0)
    assert np.all(kernel == 0)


def test_untrained_end_of_the_axis_has_no_say():
    energies, dos, n_electrons, _ = rough()
    below = np.concatenate([[0], np.cumsum(dos[1:] + dos[:-1]) * STEP / 2])
    bad = dos.copy()
    bad[below > n_electrons + 10] = -100.0  # the count falls through n_electrons again
    T = np.array([30.0, 300.0])
    assert thermo.fermi_level(energies, bad, n_electrons) == thermo.fermi_level(energies, dos, n_electrons)
    expected = thermo.chemical_potential(energies, dos, n_electrons, T)
    np.testing.assert_allclose(thermo.chemical_potential(energies, bad, n_electrons, T), expected, rtol=1e-12)


# --- linear response ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["constant", "free_electrons", "gapped", "rough"])
def test_kernels_are_derivatives(name):
    energies, dos, n_electrons, neutral = CASES[name]()
    T = np.array([100.0, 300.0, 3000.0, 20_000.0])
    if neutral:  # where mu answers linearly to a change of the band edges
        T = T[2:]
    rng = np.random.default_rng(4)
    for change in (np.cos(energies), rng.normal(size=len(energies))):
        change = change * (dos > 0)
        for f, kernel in (
            (thermo.chemical_potential, thermo.chemical_potential_kernel),
            (thermo.internal_energy, thermo.internal_energy_kernel),
            (thermo.heat_capacity, thermo.heat_capacity_kernel),
        ):
            linear = kernel(energies, dos, n_electrons, T) @ change

            def difference(h, f=f, change=change):
                return (
                    f(energies, dos + h * change, n_electrons, T) - f(energies, dos - h * change, n_electrons, T)
                ) / (2 * h)

            expected = (4 * difference(5e-5) - difference(1e-4)) / 3
            scale = np.abs(kernel(energies, dos, n_electrons, T)) @ np.abs(change)
            assert np.all(np.abs(linear - expected) < 1e-6 * scale), (f.__name__, linear / expected - 1)


def test_fermi_level_kernel_is_the_cold_limit_and_a_derivative():
    energies, dos, n_electrons, _ = rough()
    kernel = thermo.fermi_level_kernel(energies, dos, n_electrons)
    change = np.cos(energies)
    h = 1e-5
    difference = thermo.fermi_level(energies, dos + h * change, n_electrons)
    difference = (difference - thermo.fermi_level(energies, dos - h * change, n_electrons)) / (2 * h)
    assert kernel @ change == pytest.approx(float(difference), rel=1e-6)
    cold = thermo.chemical_potential_kernel(energies, dos, n_electrons, 0.1) @ change
    assert cold == pytest.approx(float(kernel @ change), rel=1e-3)
    assert np.isnan(thermo.fermi_level_kernel(*two_levels()[:3])).all()


# --- the gap -----------------------------------------------------------------------------------------------------------


def test_band_gap_is_the_width_below_the_threshold():
    energies, dos, n_electrons, _ = gapped()
    assert thermo.band_gap(energies, dos, n_electrons, 1, threshold=0.0) == pytest.approx(1.0, abs=1e-12)
    # On a straight edge of slope s, a threshold t shifts the edge by t / s.
    wedge = np.abs(energies) * 2
    n = float(np.sum((wedge[1:] + wedge[:-1])[: round(4 / STEP)]) * STEP / 2)
    assert thermo.band_gap(energies, wedge, n, 1, threshold=0.3) == pytest.approx(0.3, abs=1e-9)
    # By default 0.1 states/eV/atom; twice the atoms with twice the states have the same gap, the same states on more atoms a wider one.
    assert thermo.band_gap(energies, wedge, n, 1) == pytest.approx(0.1, abs=1e-9)
    assert thermo.band_gap(energies, np.stack([2 * wedge, wedge]), [2 * n, n], [2, 6]) == pytest.approx(
        [0.1, 0.6], abs=1e-9
    )
    assert thermo.band_gap(*constant()[:3], 1) == 0
    both = thermo.band_gap(energies, np.stack([dos, dos + 1]), n_electrons, 1)
    assert both[0] > 0.9 and both[1] == 0
    with pytest.raises(ValueError, match="a positive number of atoms, got 0"):
        thermo.band_gap(energies, dos, n_electrons, 0)


# --- faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"temperature_K": 0.0}, ValueError, "temperature_K must be positive"),
        ({"temperature_K": [300.0, -1.0]}, ValueError, r"temperature_K\[1\] must be positive and finite, got -1 K"),
        ({"temperature_K": np.nan}, ValueError, "got nan K"),
        ({"n_electrons": 0.0}, ChemicalPotentialError, "n_electrons must be positive, got 0"),
        ({"n_electrons": [3.0, np.nan]}, ValueError, r"n_electrons\[1\] must be finite"),
        ({"n_electrons": 20.5}, ChemicalPotentialError, "n_electrons = 20.5.*from -5 to 5 eV holds 20 at most"),
        ({"n_electrons": 20.0}, ChemicalPotentialError, "holds 20 at most"),
        ({"n_electrons": [3.0, 30.0]}, ChemicalPotentialError, r"entry\[1\] at 300 K: n_electrons = 30"),
        ({"energies": np.arange(3.0)}, ValueError, "3 channels in its last dimension"),
        ({"energies": -np.arange(201.0)}, ValueError, "strictly increasing"),
        ({"n_electrons": np.ones(2), "temperature_K": np.ones(3)}, ValueError, "do not broadcast"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, error, words):
    energies, dos, _, _ = constant()
    arguments = {"energies": energies, "dos": dos, "n_electrons": 8.0, "temperature_K": 300.0, **change}
    for f in (thermo.chemical_potential, thermo.heat_capacity, thermo.heat_capacity_kernel):
        with pytest.raises(error, match=words) as caught:
            f(**arguments)
        assert "\n" not in str(caught.value)


def test_nan_dos_is_refused_with_its_place():
    energies, dos, _, _ = constant()
    members = np.stack([dos] * 3)
    members[1, 7] = np.nan
    with pytest.raises(ValueError, match=r"dos\[1\] has nan at -4.65 eV"):
        thermo.heat_capacity(energies, members, 8.0, 300.0)


def test_heat_leaving_the_grid_is_an_error_not_a_fermi_level():
    """One electron in a wide band at 50 000 K: mu lies below the grid, though E_F is on it."""
    energies, dos, _, _ = constant()
    assert thermo.fermi_level(energies, dos, 0.5) == pytest.approx(-4.75)
    with pytest.raises(ChemicalPotentialError, match=r"no chemical potential for entry\[1\] at 50000 K"):
        thermo.chemical_potential(energies, dos, 0.5, [300.0, 50_000.0])


def test_finite_difference_step_is_checked():
    energies, dos, n_electrons, _ = constant()
    with pytest.raises(ValueError, match="delta_K must lie between 0 and the temperature"):
        thermo.heat_capacity_finite_difference(energies, dos, n_electrons, 300.0, delta_K=300.0)


@pytest.mark.parametrize("module", [thermo, entries, filling, fermi_integrals])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
