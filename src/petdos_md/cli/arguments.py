"""What arguments of the commands mean: models, temperatures.

>>> parse_temperatures("100:300:100")
[100.0, 200.0, 300.0]
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from ..base.electrons import parse_electrons
from ..base.errors import SettingError

if TYPE_CHECKING:
    from ..models.model import DOSModel


def load_model(name: str, args: argparse.Namespace) -> DOSModel:
    """The model of a name or path, with the options that every command with a model has."""
    from ..models.model import DOSModel

    return DOSModel.load(name, args.device, electrons=parse_electrons(args.electrons))


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
