"""What arguments of the commands mean: models, numbers of electrons, temperatures.

>>> parse_electrons("Al=3,Mg=2"), parse_temperatures("100:300:100")
({'Al': 3.0, 'Mg': 2.0}, [100.0, 200.0, 300.0])
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers

from .errors import SettingError

if TYPE_CHECKING:
    from .model import DOSModel


def load_model(name: str, args: argparse.Namespace) -> DOSModel:
    """The model of a name or path, with the options that every command with a model has."""
    from .model import DOSModel

    return DOSModel.load(name, args.device, electrons=parse_electrons(args.electrons))


def parse_electrons(text: str | None) -> dict[str, float] | None:
    """``Al=3,Mg=2`` as a dictionary.

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
        if symbol not in atomic_numbers or not electrons[symbol] > 0:
            raise SettingError(f"got --electrons {text}, expected element=number of valence electrons, as in Al=3,Mg=2")
    return electrons


def parse_temperatures(text: str | None) -> list[float] | None:
    """``300,600`` or ``100:2000:100`` (the last one included) as a list.

    :raises SettingError: if it is something else
    """
    if text is None:
        return None
    try:
        numbers = [float(x) for x in text.replace(":", ",").split(",")]
    except ValueError:
        numbers = []
    if ":" in text and len(numbers) == 3 and numbers[2] > 0 and numbers[1] >= numbers[0]:
        first, last, step = numbers
        numbers = [float(x) for x in np.arange(first, last + 1e-9 * step, step)]
    elif ":" in text:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise SettingError(f"got the temperatures {text}, expected T1,T2,... or FIRST:LAST:STEP in K, all positive")
    return numbers
