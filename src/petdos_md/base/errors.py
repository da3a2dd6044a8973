"""Errors that a user can act on: one line saying what was got, what was expected and how to fix it.

Each is also an instance of the built-in exception that fits, so that ``except ValueError`` works as expected:

>>> issubclass(ModelError, ValueError), issubclass(PredictionError, ArithmeticError)
(True, True)
"""

from __future__ import annotations


class PetdosError(Exception):
    """Base of all errors raised on purpose by this package."""


class ModelError(PetdosError, ValueError):
    """A model file is missing, unreadable, without a DOS output, or does not belong to the data at hand."""


class StructureError(PetdosError, ValueError):
    """A structure cannot be evaluated: no atoms, positions that are not finite, an unknown element."""


class TraceError(PetdosError, ValueError):
    """A trace is not readable, belongs to another model, or is being written by somebody else."""


class NoSamplesError(TraceError):
    """Results were asked for before there was a sample."""


class ChemicalPotentialError(PetdosError, ValueError):
    """No chemical potential on the energy grid gives the number of electrons."""


class PredictionError(PetdosError, ArithmeticError):
    """The model returned a number that is not finite."""


class SettingError(PetdosError, ValueError):
    """An argument is missing, out of range, or contradicts what is on disk."""


class ElectronicTemperatureError(SettingError):
    """A temperature of electrons that is no positive number, or higher than the states of a model reach."""
