"""How good a model is: reference structures, metrics, evaluation of models and their errors, calibration of ensembles.

Imports every folder above: ``base``, ``physics``, ``models``, ``traces``, ``analysis`` and ``engines``.
"""
