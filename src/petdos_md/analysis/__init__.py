"""From traces to results: which frames, averages over them, statistics of correlated series, reweighting.

Imports ``base``, ``physics``, ``models`` and ``traces``.
"""
