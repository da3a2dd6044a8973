"""The record that all engines write and every analysis reads: a row of features for each sample.

Imports ``base``. The format is described in ``docs/trace-format.md``.
"""
