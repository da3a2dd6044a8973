"""What every folder may use: errors and their fixes, constants, the energy grid, the sample, when two temperatures are one.

Imports nothing of the package.
"""
