"""Model files: exported from checkpoints, loaded, evaluated. The backbone gives features, the readout maps them to the DOS.

Imports ``base`` and ``physics``. The models that come with the package are in ``shipped``.
"""
