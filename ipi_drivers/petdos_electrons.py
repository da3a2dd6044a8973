"""For i-pi-driver-py or <ffdirect>: the free energy of hot electrons and its forces, a force component beside any potential.

i-pi-driver-py -u -a ADDRESS -m custom -P petdos_electrons.py -o model=almgsi-lda,template=init.xyz,electronic_temperature=8000
"""

from petdos_md.engines.ipi.hot_driver import ElectronsDriver  # noqa: F401

__DRIVER_NAME__ = "petdos_electrons"
__DRIVER_CLASS__ = "ElectronsDriver"
