"""For <ffdirect> in an i-PI input: sample the electronic structure in the server (`petdos ipi --snippet` prints the element)."""

from petdos_md.engines.ipi.hook import ObserverDriver  # noqa: F401

__DRIVER_NAME__ = "petdos_observer"
__DRIVER_CLASS__ = "ObserverDriver"
