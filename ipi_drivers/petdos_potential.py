"""For i-pi-driver-py or <ffdirect>: the energy head of a model as the potential, with its features as extras if asked (features=True).

i-pi-driver-py -u -a ADDRESS -m custom -P petdos_potential.py -o model=almgsi-lda,template=init.xyz
"""

from petdos_md.engines.ipi.drivers import PotentialDriver  # noqa: F401

__DRIVER_NAME__ = "petdos_potential"
__DRIVER_CLASS__ = "PotentialDriver"
