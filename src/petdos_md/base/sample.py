"""One frame of a simulation as its electronic record, and the identity of the model that made it.

>>> sample = model.evaluate(atoms)                          # doctest: +SKIP
>>> sample.features, sample.n_electrons, sample.model.name  # doctest: +SKIP

Within a trace, a sample is known by its replica (the ensemble slot or simulation it was taken from) and its step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .grid import EnergyGrid

KINDS = {
    "separated": "in a file of its own: fast, samples are features",
    "direct": "within the model: samples are whole DOS",
}
"""Where a kind of model has its readout, in words."""


@dataclass(frozen=True)
class ModelInfo:
    """What must agree for two records to be comparable.

    :param name: for people
    :param fingerprint: SHA-256 of backbone and readout, hexadecimal
    :param grid: energies of the predicted DOS
    :param kind: ``separated`` (with separate readout: features are those of the last layer) or ``direct`` (features are the DOS itself)
    :param n_features: number of features of a frame
    :param n_members: size of the ensemble, 0 if there is none
    :param electrons: valence electrons by chemical symbol
    :param path: where the model was loaded from, or its shipped name
    :param dtype: precision of the model, in which features are kept: ``float32`` or ``float64``
    """

    name: str
    fingerprint: str
    grid: EnergyGrid
    kind: str
    n_features: int
    n_members: int
    electrons: dict[str, float]
    path: str
    dtype: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelInfo:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**data, "grid": EnergyGrid.from_dict(data["grid"])})


@dataclass(frozen=True, eq=False)
class Sample:
    """The electronic record of one frame.

    :param features: ``(n_features,)`` in the model's precision. Of models with separate readout: last-layer features summed over atoms
        and edges, the number of atoms, the sum of the cutoff function over edges. Of direct models: the DOS (states/eV), followed by
        the last-layer features, if any
    :param model: the model that made it
    :param n_atoms: number of atoms
    :param n_electrons: number of valence electrons, NaN if the model has no table
    :param volume_A3: cell volume, NaN unless periodic in three directions
    :param replica: index of the simulation or ensemble slot
    :param step: molecular dynamics step, None for a structure outside a simulation
    :param time_fs: simulated time
    :param temperature_K: temperature of the ensemble
    :param kinetic_temperature_K: from the velocities
    :param potential_energy_eV: of the interatomic potential
    :param weight: statistical weight of the frame
    :param electronic_temperature_K: of hot electrons that the atoms moved among, NaN for cold ones
    """

    features: np.ndarray = field(repr=False)
    model: ModelInfo = field(repr=False)
    n_atoms: int
    n_electrons: float
    volume_A3: float
    replica: int = 0
    step: int | None = None
    time_fs: float = float("nan")
    temperature_K: float = float("nan")
    kinetic_temperature_K: float = float("nan")
    potential_energy_eV: float = float("nan")
    weight: float = 1.0
    electronic_temperature_K: float = float("nan")
