"""What every folder may use: errors, constants, the energy grid, the sample, temperatures.

Imports nothing of the package.
"""
