"""LAMMPS: an observer in Python, and the C++ plugin (in ``lammps_plugin``): how it is built and found.

The entry point for users is :mod:`petdos_md.lammps`. Nothing is imported here: ``lmp`` loads ``plugin`` at every start.
"""
