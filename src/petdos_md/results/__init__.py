"""Results for people and programs: tables, files, figures, units.

Imports every folder but ``cli``.
"""
