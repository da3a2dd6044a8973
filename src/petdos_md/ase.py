"""ASE: an observer for its dynamics and a calculator; see :mod:`petdos_md.engines.ase`.

>>> from petdos_md.ase import DOSCalculator, DOSObserver
"""

from .engines.ase import DOSCalculator, DOSObserver

__all__ = ["DOSCalculator", "DOSObserver"]
