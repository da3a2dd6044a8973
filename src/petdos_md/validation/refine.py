"""A model's last layer, updated with new reference structures in closed form: seconds, no training, the same features.

The prior is the layer that the model has, with the precision of what it was trained on, F^T F + lambda of last-layer prediction rigidity
as its readout stores it; a new structure counts as much as one of the training set, per atom. Where those say nothing, a ridge holds
the layer: the largest with which new structures that are left out in turn are predicted well. Every member is updated in the same way
(:mod:`petdos_md.validation.last_layer`). Features are what they were: traces of the old model can be analyzed with the new one.

>>> report = refine_model("almgsi-lda", read_references("liquid.xyz.xz", model), "refined.pt")        # doctest: +SKIP
>>> print(report.text())                                                                              # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..base.errors import SettingError
from ..models.files import readout_path
from ..models.model import DOSModel
from ..models.new_readout import NewReadout, open_source, write_with_readout
from ..models.readout import Readout
from .last_layer import LastLayerUpdate, choose_ridge, moved_members
from .metrics import align, dos_rmse, shifted_target, z_scores
from .references import Reference
from .residuals import MAX_SHIFT, residuals_of

FEWEST = 2
"""New structures needed: one is left out in turn."""
FEW = 10
"""Below that, neither the ridge nor the size of the errors is known well."""


@dataclass(frozen=True)
class Tested:
    """Structures that a model was not refined with.

    :param rmse, z_spread: before and after: errors, and the median over channels of the root mean square z-scores (NaN without ensemble)
    """

    n_structures: int
    rmse: tuple[float, float]
    z_spread: tuple[float, float]


@dataclass(frozen=True)
class RefinementReport:
    """What :func:`refine_model` wrote. Errors are RMSE of the DOS (Eqs. 8 and 9 of the PET-MAD-DOS article), before and after.

    :param knows_training_set: whether the old model did; if not, the ridge is all that holds the layer
    :param ridge: on the diagonal of the precision
    :param left_out: of the new structures, afterwards each by a fit without it
    :param tested: other structures; None without them
    """

    backbone: Path
    n_structures: int
    knows_training_set: bool
    weight: float
    ridge: float
    left_out: tuple[float, float]
    tested: Tested | None

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.backbone}: last layer refined with {self.n_structures} structures (ridge {self.ridge:.1e}, weight {self.weight:g})",
            "",
            "| structures | number | RMSE before | after | z of channels before | after |",
            "|---|---|---|---|---|---|",
            f"| new, each by a fit without it | {self.n_structures} | {self.left_out[0]:.4f} | {self.left_out[1]:.4f} | - | - |",
        ]
        errors = {"new structures left out in turn": self.left_out}
        if self.tested is not None:
            errors["test structures"] = self.tested.rmse
            spreads = " | ".join(f"{z:.2f}" if math.isfinite(z) else "-" for z in self.tested.z_spread)
            before, after = self.tested.rmse
            lines.append(f"| test | {self.tested.n_structures} | {before:.4f} | {after:.4f} | {spreads} |")
        lines += [
            "",
            "RMSE in eV^-0.5 electrons^-1 state, after the best rigid shift; z is 1 if the model error is right",
        ]
        for name, (before_, after_) in errors.items():
            if not after_ < before_:
                lines.append(
                    f"warning: the error of the {name} does not fall: the data teach the last layer nothing; keep the old model, or train "
                    "the network on them (LoRA)"
                )
        if not self.knows_training_set:
            lines.append(
                "warning: the model does not know its training set, and may be worse there than before; export it with --training-set first"
            )
        if self.n_structures < FEW:
            lines.append(f"note: {self.n_structures} structures hardly tell the size of the errors; take {FEW} or more")
        return "\n".join(lines)


def refine_model(
    model: str | os.PathLike[str],
    references: Sequence[Reference],
    output: str | os.PathLike[str],
    *,
    test: Sequence[Reference] = (),
    weight: float = 1.0,
    seed: int = 0,
    electrons: dict[str, float] | None = None,
    progress: Callable[[], None] | None = None,
) -> RefinementReport:
    """Write a model with the same network and a last layer that new structures have been added to.

    :param model: a model with separate readout
    :param references: new structures
    :param output: the backbone to write (``.pt``); the readout goes beside it, networks that read levels do not: they know the old DOS
    :param test: other structures, for errors before and after
    :param weight: of a new structure, in structures of the training set; above 1 the model is better for the new ones and worse for the old
    :param seed: of the noise that members are updated with
    :param progress: called after each structure
    :raises ModelError: if the model has no separate readout, or the output does not end in ``.pt``
    :raises SettingError: if there are fewer than 2 references, weight or seed are negative, or the output exists
    """
    output = Path(output)
    source, loaded = open_source(model, output, electrons)
    _check(references, weight, seed)
    features, residuals = residuals_of(loaded, references, progress)
    sizes = np.array([len(r.atoms) for r in references])[:, None]
    rows, per_atom, step = features / sizes, residuals / sizes, loaded.grid.step
    old = loaded.readout
    precision = np.zeros((rows.shape[1],) * 2)
    if old.rigidity is not None:
        precision = old.rigidity.cholesky @ old.rigidity.cholesky.T
    ridge = choose_ridge(rows, per_atom, precision, weight, step) if weight else 1.0  # without weight, any will do
    update = LastLayerUpdate(rows, np.isfinite(per_atom), precision + ridge * np.eye(len(precision)), weight)
    new = NewReadout(
        _weights(old, update.change(per_atom)),
        _deviations(old, update, rows, per_atom, seed),
        None if old.rigidity is None else old.rigidity.including(rows),
    )
    write_with_readout(source, output, new, old)
    left_out = update.left_out(per_atom) * sizes
    return RefinementReport(
        output,
        len(references),
        old.rigidity is not None,
        weight,
        ridge,
        (_rmse(residuals, references, step), _rmse(left_out, references, step)),
        _tested(loaded, Readout.load(readout_path(output)), test, progress) if test else None,
    )


def _check(references: Sequence[Reference], weight: float, seed: int) -> None:
    if len(references) < FEWEST:
        raise SettingError(
            f"got {len(references)} new structures, expected at least {FEWEST}; choose more, or compute more"
        )
    if not 0 <= weight < math.inf:
        raise SettingError(f"got the weight {weight:g}, expected 0 or more, as 1 for that of a training structure")
    if seed < 0:
        raise SettingError(f"got the seed {seed}, expected a number >= 0")


def _weights(old: Readout, change: np.ndarray) -> torch.Tensor:
    """The last layer after its change ``(n_last_layer, n_channels)``, in single precision where it was."""
    weights = old.mean_weights.clone()
    single = torch.equal(weights.float().double(), weights)
    weights[:, : len(change)] += torch.from_numpy(change.T)
    return weights.float() if single else weights


def _deviations(
    old: Readout, update: LastLayerUpdate, features: np.ndarray, residuals: np.ndarray, seed: int
) -> torch.Tensor | None:
    if old.member_deviations is None:
        return None
    moved = moved_members(update, features, residuals, old.member_deviations, old.grid.step, seed)
    return torch.from_numpy(moved)


def _rmse(residuals: np.ndarray, references: Sequence[Reference], step: float) -> float:
    """Of whole structures, without another shift."""
    electrons = np.array([r.n_electrons for r in references])
    squared = step * np.nansum(residuals**2, axis=1) / electrons**2
    return float(np.sqrt(squared.mean()))


def _tested(
    model: DOSModel, refined: Readout, test: Sequence[Reference], progress: Callable[[], None] | None
) -> Tested:
    """Both readouts on the same features."""
    targets, electrons = [r.target for r in test], np.array([r.n_electrons for r in test])
    features = []
    for reference in test:
        features.append(model.evaluate(reference.atoms).features)
        if progress is not None:
            progress()
    rmse, spreads = [], []
    for readout in (model.readout, refined):
        predictions = readout.dos(np.array(features))
        rmse.append(dos_rmse(targets, list(predictions), electrons, readout.grid.step, MAX_SHIFT)[0])
        spreads.append(_z_spread(readout, features, targets, predictions) if readout.n_members > 1 else math.nan)
    return Tested(len(test), (rmse[0], rmse[1]), (spreads[0], spreads[1]))


def _z_spread(
    readout: Readout, features: list[np.ndarray], targets: list[np.ndarray], predictions: np.ndarray
) -> float:
    """Median over the channels that half of the structures define."""
    found = []
    for x, target, prediction in zip(features, targets, predictions, strict=True):
        best = align(target, prediction, readout.grid.step, MAX_SHIFT)
        found.append(z_scores(shifted_target(target, best.shift), readout.members(x)))
    z = np.array(found)
    z = z[:, np.isfinite(z).sum(axis=0) >= len(z) / 2]
    return float(np.median(np.sqrt(np.nanmean(z**2, axis=0))))
