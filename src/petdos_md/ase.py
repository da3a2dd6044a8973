"""ASE: an observer for its dynamics and calculators; see :mod:`petdos_md.engines.ase`, :mod:`petdos_md.engines.hot_calculator`, :mod:`petdos_md.engines.two_temperature`.

>>> from petdos_md.ase import DOSCalculator, DOSObserver, HotElectronCalculator
"""

from .engines.ase import DOSCalculator, DOSObserver
from .engines.hot_calculator import HotElectronCalculator
from .engines.two_temperature import LaserPulse, TwoTemperatureDynamics

__all__ = ["DOSCalculator", "DOSObserver", "HotElectronCalculator", "LaserPulse", "TwoTemperatureDynamics"]
