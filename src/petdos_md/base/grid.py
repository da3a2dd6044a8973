"""The energy axis of a density of states: evenly spaced, with a named zero.

>>> grid = EnergyGrid(start=-20.0, step=0.05, n=801)
>>> float(grid.energies[-1])
20.0
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import SettingError

REFERENCES = ("raw", "fermi", "vbm")
"""Names of energy zeros: the model's own axis, the Fermi level, the valence band maximum."""


@dataclass(frozen=True)
class EnergyGrid:
    """Evenly spaced energies.

    :param start: first energy (eV)
    :param step: spacing (eV), positive
    :param n: number of points, at least two
    :param reference: what zero means, one of :data:`REFERENCES`; a model's ``raw`` zero has no physical meaning
    :raises SettingError: if the numbers do not make a grid or the reference is unknown
    """

    start: float
    step: float
    n: int
    reference: str = "raw"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start) and np.isfinite(self.step) and self.step > 0 and self.n >= 2):
            raise SettingError(
                f"an energy grid needs a finite start, a positive step and at least 2 points, "
                f"got start={self.start}, step={self.step}, n={self.n}"
            )
        if self.reference not in REFERENCES:
            raise SettingError(f"unknown energy reference {self.reference!r}, expected one of {', '.join(REFERENCES)}")

    @property
    def energies(self) -> np.ndarray:
        """All energies in eV, shape ``(n,)``."""
        return self.start + self.step * np.arange(self.n)

    @property
    def stop(self) -> float:
        """The last energy in eV."""
        return self.start + self.step * (self.n - 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EnergyGrid:
        """The inverse of :meth:`to_dict`."""
        return cls(float(data["start"]), float(data["step"]), int(data["n"]), str(data["reference"]))
