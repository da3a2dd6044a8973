"""For i-pi-driver-py or <ffdirect>: psi as extras, without forces, for a force component of weight 0.

i-pi-driver-py -u -a ADDRESS -m custom -P petdos_psi.py -o model=almgsi-lda,template=init.xyz
"""

from petdos_md.engines.ipi.drivers import PsiDriver  # noqa: F401

__DRIVER_NAME__ = "petdos_psi"
__DRIVER_CLASS__ = "PsiDriver"
