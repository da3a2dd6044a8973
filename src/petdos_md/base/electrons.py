"""Numbers of valence electrons as people write them.

>>> parse_electrons("Al=3,Mg=2")
{'Al': 3.0, 'Mg': 2.0}
"""

from __future__ import annotations

import math

from ase.data import atomic_numbers

from .errors import SettingError


def parse_electrons(text: str | None) -> dict[str, float] | None:
    """``Al=3,Mg=2`` as a dictionary; commas or blanks separate.

    :raises SettingError: if it is something else
    """
    if text is None:
        return None
    electrons = {}
    for part in text.replace(" ", ",").split(","):
        symbol, _, number = part.partition("=")
        try:
            electrons[symbol] = float(number)
        except ValueError:
            electrons[symbol] = -1.0
        if symbol not in atomic_numbers or not 0 < electrons[symbol] < math.inf:
            raise SettingError(f"got --electrons {text}, expected element=number of valence electrons, as in Al=3,Mg=2")
    return electrons
