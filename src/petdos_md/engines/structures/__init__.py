"""Structures and trajectories as people have them, read right or refused in one line.

``files`` is the entrance; a module for each family of formats does the reading. Imported by engines and validation; imports ASE and
``base`` alone.
"""
