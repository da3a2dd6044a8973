"""The uncertainty of a potential's energies, by the rigidity of its last layer: what metatomic calls ``energy_uncertainty``, ``energy_ensemble``.

With the last-layer features phi of the energy head, summed over what the energy is of (a structure or an atom), the standard deviation is

    u = alpha (phi^T (F^T F + lambda)^-1 phi)^(1/2),

and member k of the ensemble is the energy plus d_k phi, with d_k drawn so that the members spread by u (Bigi et al., Mach. Learn.: Sci.
Technol. 5 (2024) 045018, doi 10.1088/2632-2153/ad805f). alpha makes the root mean square of error / u one on validation structures.

The rows of F are the features of *atoms* of the training set. Rows of whole structures, as metatrain's LLPR has them for a target per
structure, leave energies of single atoms nearly free, whose uncertainty then is far above that of any error found; but a potential is
trained on three forces of every atom, too. On structures, both kinds of rows are as likely (``examples/training/energy_ensemble.py``).

>>> rng = np.random.default_rng(0)
>>> atoms = rng.normal(1.0, 0.2, (400, 3))
>>> sums = atoms.reshape(50, 8, 3).sum(axis=1)
>>> made = EnergyEnsemble.fit(atoms, sums, rng.normal(0.0, 0.1, 50))
>>> bool(abs(np.sqrt(np.mean((0.1 / made.uncertainty(sums)) ** 2)) - 1.0) < 0.3)
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from ..base.errors import ModelError
from .output_names import ENERGY_FEATURES_OUTPUT

if TYPE_CHECKING:
    from .model import DOSModel

REGULARIZER = 1e-3
N_MEMBERS = 32
FEWEST = 4
"""Validation structures: the size of an error cannot be estimated from fewer."""


@dataclass(frozen=True, eq=False)
class EnergyEnsemble:
    """The ensemble of an energy head.

    :param whitening: W, ``(n_last_layer, n_last_layer)``: u = \\|phi W\\|, eV
    :param members: d, ``(n_members, n_last_layer)`` eV, their mean zero; none if there are no rows
    """

    whitening: np.ndarray
    members: np.ndarray

    @classmethod
    def fit(
        cls,
        atoms: np.ndarray,
        sums: np.ndarray,
        residuals: np.ndarray,
        *,
        n_members: int = N_MEMBERS,
        regularizer: float = REGULARIZER,
        seed: int = 0,
    ) -> EnergyEnsemble:
        """Of a training and a validation set.

        :param atoms: features of the atoms of the training set, ``(n_atoms, n_last_layer)``
        :param sums: features of validation structures, ``(n, n_last_layer)``
        :param residuals: errors of their energies, ``(n,)`` eV
        :raises ModelError: if there are fewer than 4 validation structures
        """
        if len(sums) < FEWEST:
            raise ModelError(f"got {len(sums)} validation structures with energies, expected at least {FEWEST}")
        covariance = atoms.T @ atoms + regularizer * np.eye(atoms.shape[1])
        root = scipy.linalg.solve_triangular(np.linalg.cholesky(covariance), np.eye(len(covariance)), lower=True).T
        alpha = np.sqrt(np.mean(residuals**2 / ((sums @ root) ** 2).sum(axis=1)))
        whitening = alpha * root
        drawn = np.random.default_rng(seed).standard_normal((n_members, len(covariance))) @ whitening.T
        return cls(whitening, drawn - drawn.mean(axis=0))

    def uncertainty(self, features: np.ndarray) -> np.ndarray:
        """u of summed features, ``(..., n_last_layer)`` to ``(...)``, eV."""
        return np.asarray(np.linalg.norm(features @ self.whitening, axis=-1))


def learn_energy_ensemble(
    model: DOSModel,
    training: Sequence[Atoms],
    validation: Sequence[Atoms],
    progress: Callable[[], None] | None = None,
    **numbers: float,
) -> EnergyEnsemble:
    """The ensemble of the energy head of a model, by the network itself.

    :param training: structures that the network was trained on
    :param validation: others, with energies
    :param progress: called after each structure
    :param numbers: ``n_members``, ``regularizer``, ``seed`` of :meth:`EnergyEnsemble.fit`
    :raises ModelError: if the model has no energy head, or there are too few validation structures
    """
    if not model.has_energy:
        raise ModelError(f"{model.info.name} has no energy output, so there is no ensemble of it")
    rows = []
    for atoms in training:
        rows.append(model.evaluator.rows_of_atoms(atoms, ENERGY_FEATURES_OUTPUT))
        if progress is not None:
            progress()
    sums, residuals = energy_residuals(model, validation, progress)
    return EnergyEnsemble.fit(np.concatenate(rows), sums, residuals, **numbers)  # type: ignore[arg-type]


def energy_residuals(
    model: DOSModel, structures: Sequence[Atoms], progress: Callable[[], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(n, n_last_layer)`` and errors of the energy ``(n,)`` eV of structures that have one.

    :raises ModelError: if one has none
    """
    sums, residuals = [], []
    for atoms in structures:
        if not has_energy(atoms):
            raise ModelError(
                "a structure has no energy; give structures with energies of the functional of the training"
            )
        row = model.evaluator.rows([atoms], ("energy", ENERGY_FEATURES_OUTPUT))[0]
        sums.append(row[1:])
        residuals.append(row[0] - atoms.get_potential_energy())
        if progress is not None:
            progress()
    return np.array(sums), np.array(residuals)


def has_energy(atoms: Atoms) -> bool:
    """Whether a structure comes with an energy."""
    if atoms.calc is None:
        return False
    try:
        return atoms.calc.get_property("energy", atoms, allow_calculation=False) is not None
    except (PropertyNotImplementedError, NotImplementedError):
        return False
