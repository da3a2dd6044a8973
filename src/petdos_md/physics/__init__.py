"""A density of states and what follows from it: occupation, thermodynamics, response, denoising.

NumPy alone computes what follows from a DOS. Denoising needs SciPy besides, curves come as xarray datasets, and the
networks that read a DOS need torch. Imports ``base``.
"""
