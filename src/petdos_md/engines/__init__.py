"""What makes samples: ASE, LAMMPS and i-PI, ``petdos md``, and stored trajectories.

Imports ``base``, ``physics``, ``models`` and ``traces``; of ``analysis`` only the running average and what it needs.
Nothing is imported here: LAMMPS asks for the plugin at every start, which must be quick.
"""
