"""The trace: the record that all engines write and every analysis reads, one row of features and labels a sample.

Imports ``base``. The format is described in ``docs/trace-format.md``.
"""
