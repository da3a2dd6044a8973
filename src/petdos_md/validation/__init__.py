"""How good a model is: references, metrics, errors against model errors, calibration.

Imports ``base``, ``physics``, ``models``, ``traces``, ``analysis`` and ``engines``.
"""
