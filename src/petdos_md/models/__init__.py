"""Model files: exported, loaded, evaluated. The backbone gives features, the readout the DOS.

Imports ``base`` and ``physics``. The models that come with the package are in ``shipped``.
"""
