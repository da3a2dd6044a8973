"""How far a structure lies from the training set of a model, by the rigidity of its last-layer features.

The variance that last-layer prediction rigidity gives to a prediction for the features x = phi / N of a structure, per atom, is

    h = x^T (F^T F + lambda)^-1 x,

up to a factor, with the rows of F the features per atom of the training structures (Bigi et al., Mach. Learn.: Sci. Technol. 5 (2024)
045018, doi 10.1088/2632-2153/ad805f; Chong et al., J. Chem. Theory Comput. 19 (2023) 8020, doi 10.1021/acs.jctc.3c00704). In linear
regression h is the leverage. It depends on the structure and on the training structures, not on their energies or DOS.

The *extrapolation grade* of a structure is h divided by the 99th percentile of what training structures have, each judged without
itself (h / (1 - h), the formula of Sherman and Morrison): at most :data:`OUTSIDE` for all but 1 % of what the model has seen, above
:data:`FAR_OUTSIDE` for what is unlike all of it.

>>> rng = np.random.default_rng(0)
>>> seen = np.outer(np.ones(200), [5.0, 1.0]) + rng.normal(0.0, 0.1, (200, 2))   # features per atom of 200 training structures
>>> rigidity = Rigidity.of_training(seen, regularizer=1e-3)
>>> inside, outside = rigidity.grade(8 * np.array([[5.0, 1.0], [5.0, 2.5]]), n_atoms=8)
>>> bool(inside < OUTSIDE), bool(outside > FAR_OUTSIDE)
(True, True)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.linalg

from ..base.errors import ModelError

OUTSIDE, FAR_OUTSIDE = 1.0, 2.0
"""Extrapolation grades above which a structure is outside, and far outside, the training set."""
REGULARIZER = 1e-3
"""lambda, added to the diagonal of F^T F; that of the shipped ensembles."""
QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
REFERENCE = 0.99
"""The quantile that grades refer to. Higher ones are those of single structures in a training set of hundreds."""
FEWEST_ATOMS = 20
"""Of an element in the training set, for grades of single atoms."""


@dataclass(frozen=True, eq=False)
class Rigidity:
    """The covariance of the features of a training set, and the variances of that set itself.

    :param cholesky: L, ``(n_last_layer, n_last_layer)``, lower: L L^T = F^T F + lambda
    :param n_structures: of the training set; 0 if nothing but the covariance is known: then there are variances, but no grades
    :param quantiles: of the variances of training structures, each without itself, at :data:`QUANTILES`
    :param of_atoms: the quantile :data:`REFERENCE` of the variances of single atoms, by chemical symbol, each without its structure
    """

    cholesky: np.ndarray
    n_structures: int = 0
    quantiles: tuple[float, ...] = ()
    of_atoms: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_training(
        cls,
        features: np.ndarray,
        regularizer: float = REGULARIZER,
        atoms: tuple[np.ndarray, Sequence[str], np.ndarray] | None = None,
    ) -> Rigidity:
        """Of the features of a training set.

        :param features: per atom, ``(n_structures, n_last_layer)``
        :param regularizer: lambda
        :param atoms: of all atoms: features ``(n_atoms, n_last_layer)``, symbols, and the row of their structure in ``features``
        :raises ModelError: if there are no structures or features are not finite
        """
        features = np.asarray(features, dtype=np.float64)
        if not len(features) or not np.isfinite(features).all():
            raise ModelError(
                "got no training structures, or features that are not finite; give the structures of the training"
            )
        covariance = features.T @ features + regularizer * np.eye(features.shape[1])
        # Rounded as it is stored, so that a model read from its file gives the same numbers.
        found = cls(np.linalg.cholesky(covariance).astype(np.float32).astype(np.float64))
        own = found.variance(features)
        without = np.maximum(1.0 - own, 1e-9)
        quantiles = tuple(float(q) for q in np.quantile(own / without, QUANTILES))
        of_atoms = {} if atoms is None else found._of_atoms(features, without, *atoms)
        return cls(found.cholesky, len(features), quantiles, of_atoms)

    def including(self, features: np.ndarray) -> Rigidity:
        """That of a training set with more structures. Grades keep the unit of the first ones, whose own features are not stored.

        :param features: per atom, of the new structures ``(n, n_last_layer)``
        """
        rows = np.asarray(features, dtype=np.float64)
        factor = np.linalg.cholesky(self.cholesky @ self.cholesky.T + rows.T @ rows)
        number = self.n_structures + len(rows) if self.n_structures else 0
        return replace(self, cholesky=factor.astype(np.float32).astype(np.float64), n_structures=number)

    @property
    def n_last_layer(self) -> int:
        """Number of features."""
        return len(self.cholesky)

    @property
    def reference(self) -> float:
        """The variance with the grade one; NaN if the training set is not known."""
        return self.quantiles[QUANTILES.index(REFERENCE)] if self.quantiles else float("nan")

    def variance(self, per_atom: np.ndarray) -> np.ndarray:
        """h of features per atom, ``(..., n_last_layer)`` to ``(...)``, without unit."""
        rows = np.asarray(per_atom, dtype=np.float64)
        flat = rows.reshape(-1, self.n_last_layer)
        solved = scipy.linalg.solve_triangular(self.cholesky, flat.T, lower=True, check_finite=False)
        return np.asarray((solved**2).sum(axis=0).reshape(rows.shape[:-1]))

    def grade(self, features: np.ndarray, n_atoms: np.ndarray | float) -> np.ndarray:
        """Extrapolation grades of structures, NaN if the training set is not known.

        :param features: last-layer features summed over atoms and edges, ``(..., n_last_layer)``
        :param n_atoms: ``(...)``
        :returns: ``(...)``
        """
        return self.variance(np.asarray(features, dtype=np.float64) / np.asarray(n_atoms)[..., None]) / self.reference

    def grade_of_atoms(self, features: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """The same for single atoms, against those of their element in the training set; NaN for elements that are rare there.

        :param features: of atoms, ``(n_atoms, n_last_layer)``
        :returns: ``(n_atoms,)``
        """
        references = np.array([self.of_atoms.get(symbol, np.nan) for symbol in symbols])
        return self.variance(features) / references

    def inverse(self) -> np.ndarray:
        """M = (F^T F + lambda)^-1, ``(n_last_layer, n_last_layer)``."""
        return np.asarray(scipy.linalg.cho_solve((self.cholesky, True), np.eye(self.n_last_layer)))

    def to_text(self) -> str:
        """All but the matrix, as JSON."""
        about = {"n_structures": self.n_structures, "quantiles": list(self.quantiles), "of_atoms": dict(self.of_atoms)}
        # The plugin for LAMMPS reads this one.
        return json.dumps(about | ({"reference": self.reference} if self.quantiles else {}))

    @classmethod
    def from_text(cls, cholesky: np.ndarray, text: str) -> Rigidity:
        """The inverse of :meth:`to_text`."""
        found: dict[str, Any] = json.loads(text)
        return cls(
            np.asarray(cholesky, dtype=np.float64), found["n_structures"], tuple(found["quantiles"]), found["of_atoms"]
        )

    def _of_atoms(
        self, features: np.ndarray, without: np.ndarray, atoms: np.ndarray, symbols: Sequence[str], rows: np.ndarray
    ) -> dict[str, float]:
        solved = scipy.linalg.solve_triangular(self.cholesky, np.asarray(atoms, dtype=np.float64).T, lower=True)
        own = scipy.linalg.solve_triangular(self.cholesky, features.T, lower=True)[:, rows]
        variances = (solved**2).sum(axis=0) + (solved * own).sum(axis=0) ** 2 / without[rows]
        names = np.asarray(symbols)
        return {
            str(name): float(np.quantile(variances[names == name], REFERENCE))
            for name in np.unique(names)
            if (names == name).sum() >= FEWEST_ATOMS
        }
