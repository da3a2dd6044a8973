"""ASE: an observer for its dynamics and calculators; see :mod:`petdos_md.engines.ase` and :mod:`petdos_md.engines.hot_calculator`.

>>> from petdos_md.ase import DOSCalculator, DOSObserver, HotElectronCalculator
"""

from .engines.ase import DOSCalculator, DOSObserver
from .engines.hot_calculator import HotElectronCalculator

__all__ = ["DOSCalculator", "DOSObserver", "HotElectronCalculator"]
