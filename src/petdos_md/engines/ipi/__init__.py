"""i-PI: an observer in its server, force fields for it, and traces from what it wrote. Imports what ``engines`` imports.

The entry point for users is :mod:`petdos_md.ipi`.
"""
