"""A density of states and what follows from it: occupation, thermodynamics, response, denoising.

NumPy only, but for the networks that read a DOS, which need torch. Imports ``base``.
"""
