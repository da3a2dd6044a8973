"""i-PI: an observer in its server; see :mod:`petdos_md.engines.ipi.observer`.

>>> from petdos_md.ipi import attach                                                    # doctest: +SKIP
>>> observer = attach(simulation, "almgsi-lda", "run.zarr", every=50)                   # doctest: +SKIP
"""

from .engines.ipi.observer import Observer, attach, check_start

__all__ = ["Observer", "attach", "check_start"]
