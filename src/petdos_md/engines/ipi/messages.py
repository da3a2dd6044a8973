"""What petdos says in the output of i-PI, in its form.

>>> warn("the cell is small")                                                  # doctest: +SKIP
"""

from __future__ import annotations


def say(message: str) -> None:
    """For information."""
    from ipi.utils.messages import info, verbosity

    info(f" @petdos: {message}", verbosity.low)


def warn(message: str) -> None:
    """A warning, which i-PI marks as such."""
    from ipi.utils.messages import verbosity, warning

    warning(f" @petdos: {message}", verbosity.low)
