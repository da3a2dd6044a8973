"""For i-pi-driver-py or <ffdirect>: features as extras, without forces, for a force component of weight 0.

i-pi-driver-py -u -a ADDRESS -m custom -P petdos_features.py -o model=almgsi-lda,template=init.xyz
"""

from petdos_md.engines.ipi.drivers import FeaturesDriver  # noqa: F401

__DRIVER_NAME__ = "petdos_features"
__DRIVER_CLASS__ = "FeaturesDriver"
