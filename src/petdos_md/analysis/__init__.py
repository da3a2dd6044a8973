"""From traces to results: choice of frames, averages, statistics, reweighting.

Imports ``base``, ``physics``, ``models`` and ``traces``.
"""
