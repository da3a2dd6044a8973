"""How good a model is: reference structures, metrics, validation of models and of their errors, calibration of ensembles.

Imports every folder above: ``base``, ``physics``, ``models``, ``traces``, ``analysis`` and ``engines``.
"""
