"""A density of states and what follows from it: occupation, thermodynamics and its linear response, denoising, band structures.

NumPy only, but for the networks that read a DOS, which need torch. Imports ``base``.
"""
