"""Constants of nature and units, all from :mod:`scipy.constants` (CODATA 2018 or later; k_B, e and N_A are exact in the SI).

>>> BOLTZMANN_EV
8.617333262145179e-05
"""

from __future__ import annotations

import numpy as np
import scipy.constants

BOLTZMANN_EV: float = scipy.constants.k / scipy.constants.e
"""Boltzmann constant in eV/K."""

HARTREE_EV: float = scipy.constants.value("Hartree energy in eV")
"""Hartree in eV."""

FARADAY: float = scipy.constants.N_A * scipy.constants.e
"""J/mol of 1 eV per particle."""

GPA_A3_EV: float = scipy.constants.giga * scipy.constants.angstrom**3 / scipy.constants.e
"""eV in a GPa times a cubic angstrom."""

SOMMERFELD: float = np.pi**2 / 3 * BOLTZMANN_EV**2
"""gamma / g(E_F) in eV^2/K^2: the heat capacity of a metal is gamma T at low temperature."""
