"""The command ``petdos``: one module per command, with its arguments and what it does.

Imports every folder, and is imported by none.
"""
