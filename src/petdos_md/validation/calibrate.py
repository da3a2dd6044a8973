"""An ensemble whose channels err together, fitted on a calibration split, for any model with separate readout.

Members drawn for each energy on its own are right in every channel and wrong in every integral: over the hundreds of channels of a
band their errors cancel, which those of a model do not. Here members differ from the model by

    D_k = diag(s) R^(1/2) X_k M^(1/2),   M = (F^T F + lambda)^-1,   X_k standard normal (n_channels, n_last_layer),

so that the covariance of two channels E, E' for a structure with last-layer features phi is s(E) s(E') R(E - E') phi^T M phi: the last
factor is the variance of last-layer prediction rigidity (Bigi et al., Mach. Learn.: Sci. Technol. 5 (2024) 045018), R the
correlation and s the size of the residuals of the calibration structures. lambda has the largest Gaussian likelihood, each
structure being judged without itself. The mean of the members stays exactly the model.

>>> report = calibrate_model("almgsi-lda", references, "calibrated.pt")        # doctest: +SKIP
>>> print(report.text())                                                       # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from scipy.ndimage import gaussian_filter1d

from ..base.errors import SettingError
from ..models.model import DOSModel
from ..models.new_readout import NewReadout, open_source, write_with_readout
from ..physics.dft import SMEARING_EV
from .references import Reference
from .residuals import autocorrelation, correlation_root, n_last_layer, residuals_of
from .validate import validate_model

FEWEST = 4
"""Calibration structures needed: the size of an error cannot be estimated from fewer."""
FEW = 20
"""Below that, the size of an error is known to 16 % at best."""


@dataclass(frozen=True)
class CalibrationReport:
    """What :func:`calibrate_model` wrote.

    :param regularizer: lambda, relative to the mean of the diagonal of F^T F
    :param before, after: root mean square z-scores on the calibration split, by name; None if there was no ensemble before
    """

    backbone: Path
    n_structures: int
    n_members: int
    regularizer: float
    before: dict[str, float] | None
    after: dict[str, float]

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.backbone}: {self.n_members} members from {self.n_structures} structures, lambda {self.regularizer:.1e}",
            "root mean square z-scores on the calibration split itself; judge by `petdos validate` on another one",
        ]
        for name, after in self.after.items():
            before = "-" if self.before is None else _number(self.before[name])
            lines.append(f"  {name.replace('_', ' '):<28} before {before:>6}   after {_number(after)}")
        if any(math.isnan(after) for after in self.after.values()):
            lines.append(
                "note: ? where the predicted DOS, or that of a member, does not hold the electrons; a model that is trained holds them"
            )
        if self.n_structures < FEW:
            uncertain = 100 / math.sqrt(2 * self.n_structures)  # relative standard error of a standard deviation
            lines.append(
                f"note: the size of the new errors is known to {uncertain:.0f} %, from {self.n_structures} structures; take {FEW} or more"
            )
        return "\n".join(lines)


def calibrate_model(
    model: str | os.PathLike[str],
    references: Sequence[Reference],
    output: str | os.PathLike[str],
    *,
    features_of: Sequence[Atoms] = (),
    n_members: int = 64,
    seed: int = 0,
    electrons: dict[str, float] | None = None,
    progress: Callable[[], None] | None = None,
) -> CalibrationReport:
    """Write a model with the same mean prediction and a new ensemble.

    :param model: a model with separate readout
    :param references: the calibration split, which the model was not trained on
    :param output: the backbone to write (``.pt``); readout and networks go beside it
    :param features_of: training structures; what resembles them has small errors. Without them, the calibration
        structures stand for what the model has seen
    :param n_members: of the new ensemble, at least 4
    :param progress: called after each structure
    :raises ModelError: if the model has no separate readout, or the output does not end in ``.pt``
    :raises SettingError: if there are fewer than 4 references or members, the seed is negative, or output is the model itself or exists
    """
    output = Path(output)
    source, loaded = open_source(model, output, electrons)
    if len(references) < FEWEST or n_members < FEWEST:
        raise SettingError(
            f"got {len(references)} references and {n_members} members, expected at least {FEWEST} of each; choose more structures, or "
            "compute more"
        )
    if seed < 0:
        raise SettingError(f"got the seed {seed}, expected a number >= 0")
    features, residuals = residuals_of(loaded, references, progress)
    seen = _features_per_atom(loaded, features_of, progress)
    sizes = np.array([len(r.atoms) for r in references])
    fit = fit_covariance(features, residuals, sizes, loaded.grid.step, seen)
    new = NewReadout(None, draw_members(fit, n_members, seed), loaded.readout.rigidity)
    write_with_readout(source, output, new, loaded.readout)
    calibrated = DOSModel.load(output, "cpu", electrons=electrons)
    before = _spreads(loaded, references) if loaded.n_members > 1 else None
    return CalibrationReport(
        output, len(references), n_members, fit.regularizer, before, _spreads(calibrated, references)
    )


def _number(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:.2f}"


@dataclass(frozen=True)
class Covariance:
    """The model of the errors: covariance of channels c, c' for features phi is s_c s_c' R_cc' phi^T M phi.

    :param scale: s, ``(n_channels,)``
    :param correlation_root: ``(n_channels, rank)``, R = root root^T
    :param feature_root: ``(n_last_layer, n_last_layer)``, M = root root^T
    :param regularizer: lambda, relative to the mean diagonal of F^T F
    """

    scale: np.ndarray
    correlation_root: np.ndarray
    feature_root: np.ndarray
    regularizer: float


def fit_covariance(
    features: np.ndarray, residuals: np.ndarray, n_atoms: np.ndarray, step: float, seen: np.ndarray | None = None
) -> Covariance:
    """Fit the errors of a calibration split.

    :param features: ``(n, n_last_layer)`` of whole structures
    :param residuals: ``(n, n_channels)`` reference minus prediction, states/eV, NaN where undefined
    :param n_atoms: ``(n,)``
    :param step: of the energies, eV
    :param seen: ``(m, n_last_layer)`` per atom, of training structures
    """
    per_atom = features / n_atoms[:, None]
    known = per_atom if seen is None else seen
    values, vectors = np.linalg.eigh(known.T @ known)
    mean = float(values.clip(0).mean())
    projected, own = features @ vectors, per_atom @ vectors
    best = (-np.inf, 0.0, np.zeros(len(features)))
    for ratio in np.logspace(-8, 1, 37):
        inverse = 1.0 / (values.clip(0) + ratio * mean)
        variance = (projected**2) @ inverse
        if seen is None:
            # Sherman and Morrison: the covariance of the others follows from that of all.
            leverage = (own**2) @ inverse
            variance = variance / np.maximum(1.0 - leverage, 1e-9)
        deviation = np.sqrt(variance)
        scale = _scale(residuals, deviation, step)
        with np.errstate(invalid="ignore", divide="ignore"):
            terms = -0.5 * (residuals / (deviation[:, None] * scale)) ** 2 - np.log(deviation[:, None] * scale)
        likelihood = float(np.nanmean(terms))
        if likelihood > best[0]:
            best = likelihood, float(ratio), deviation
    _, ratio, deviation = best
    scale = _scale(residuals, deviation, step)
    standard = residuals / (deviation[:, None] * scale)
    root = correlation_root(autocorrelation(standard))
    feature_root = vectors / np.sqrt(values.clip(0) + ratio * mean)
    return Covariance(scale, root, feature_root, ratio)


def draw_members(fit: Covariance, n_members: int, seed: int = 0) -> torch.Tensor:
    """Deviations of members from their mean, ``(n_members, n_channels, n_last_layer)`` float32, their mean exactly zero."""
    rng = np.random.default_rng(seed)
    shape = fit.correlation_root.shape[1], fit.feature_root.shape[0]
    result = torch.empty(n_members, len(fit.scale), shape[1])
    left = fit.scale[:, None] * fit.correlation_root
    for member in range(n_members):
        result[member] = torch.from_numpy(left @ rng.standard_normal(shape) @ fit.feature_root.T)
    # n - 1 in the spread: taking the mean away leaves the standard deviation over members as it should be.
    return result - result.mean(dim=0)


def _features_per_atom(
    model: DOSModel, structures: Sequence[Atoms], progress: Callable[[], None] | None
) -> np.ndarray | None:
    """Last-layer features, ``(n_structures, n_last_layer)``; None without structures."""
    rows = []
    for atoms in structures:
        rows.append(model.evaluate(atoms).features[: n_last_layer(model)] / len(atoms))
        if progress is not None:
            progress()
    return np.array(rows) if rows else None


def _scale(residuals: np.ndarray, deviation: np.ndarray, step: float) -> np.ndarray:
    """Size of the errors in units of ``deviation`` per channel; channels that nothing defines take that of the nearest one."""
    ratio = residuals / deviation[:, None]
    defined = np.isfinite(ratio)
    # A target vanishes below its bands: what counts there is how far predictions are from zero, and that is defined, too.
    count = gaussian_filter1d(defined.sum(axis=0).astype(float), SMEARING_EV / step)
    total = gaussian_filter1d(np.where(defined, ratio**2, 0.0).sum(axis=0), SMEARING_EV / step)
    known = np.flatnonzero(defined.any(axis=0))
    scale = np.sqrt(total / np.maximum(count, 1e-12))
    nearest = known[np.abs(np.arange(len(scale))[:, None] - known[None, [0, -1]]).argmin(axis=1) * (len(known) - 1)]
    scale = np.where(defined.any(axis=0), scale, scale[nearest])
    return np.maximum(scale, 1e-6 * scale.max())


def _spreads(model: DOSModel, references: Sequence[Reference]) -> dict[str, float]:
    """Root mean square z-scores, by name."""
    result = validate_model(model, references, symmetry=False).summary()
    spreads = {"channels_(median)": result["channel_z_spread"]}
    return spreads | {name: integral["z_spread"] for name, integral in result["integrals"].items()}
