"""LAMMPS from Python: an observer, and the C++ plugin; see :mod:`petdos_md.engines.lammps.observer`.

>>> import petdos_md.lammps as pml                                                      # doctest: +SKIP
>>> pml.attach(lmp, "almgsi-lda", "run.zarr", ["Al"], temperature_K=900, every=50)      # doctest: +SKIP
"""

from .engines.lammps.observer import LAMMPSObserver, atoms_of, attach

__all__ = ["LAMMPSObserver", "atoms_of", "attach"]
