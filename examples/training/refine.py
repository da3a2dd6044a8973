"""Would a Bayesian update of the last layer with new data be worth a command? A first measurement, without training.

    python refine.py outputs/cold/cold.pt --data outputs/gaas-lora-100/train.xyz --test outputs/gaas-lora-100/test.xyz

The last layer W of a model is linear in the features f: with the covariance of the LLPR as prior, W has a Gaussian posterior given
structures with a DOS y (moved onto the axis of the model), in closed form. For every channel, with noise s and prior deviation a:
W_new = W + (F^T F / s^2 + P / a^2)^-1 F^T (y - F W) / s^2, where P = F_0^T F_0 + reg of the structures that the model has seen
(``--seen``) or, without them, that of the new data. a / s is chosen by leaving one structure out in turn, and the RMSE of the test set
(Eqs. 8 and 9 of the PET-MAD-DOS article, DOI 10.1039/D5DD00557D) is printed for parts of the new data, before and after.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from petdos_md import DOSModel
from petdos_md.validation.metrics import align, dos_rmse, shifted_target

RATIOS = np.geomspace(1e-3, 1e3, 13)
"""Prior deviation over noise, in units that make the prior covariance of the features one per structure seen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="new structures, train.xyz as written by train.py")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--seen", type=Path, help="structures that the model was trained on")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.2, 0.5, 1.0])
    args = parser.parse_args()
    model = DOSModel.load(args.model, device="cpu")
    new, test = (ase.io.read(path, ":") for path in (args.data, args.test))
    x_test, y_test, base_test, _ = collect(model, test)
    x, _, base, moved = collect(model, new)
    seen = x if args.seen is None else collect(model, ase.io.read(args.seen, ":"))[0]
    prior = seen.T @ seen / len(seen)
    prior += 1e-4 * np.trace(prior) / len(prior) * np.eye(len(prior))
    electrons = np.array([float(a.info["n_electrons"]) for a in test])
    step = model.grid.step
    before = dos_rmse(y_test, list(base_test), electrons, step, 200)[0]
    print(f"| new structures | RMSE before | after |\n|---|---|---|\n| 0 | {before:.4f} | |")
    for fraction in args.fractions:
        n = max(2, round(fraction * len(new)))
        residual = moved[:n] - base[:n]
        ratio = best_ratio(x[:n], residual, prior)
        update = posterior_mean(x[:n], residual, prior, ratio)
        after = dos_rmse(y_test, list(base_test + x_test @ update), electrons, step, 200)[0]
        print(f"| {n} | {before:.4f} | {after:.4f} (prior over noise {ratio:.3g}) |", flush=True)


def collect(model: DOSModel, structures: list[Atoms]) -> tuple[np.ndarray, list, np.ndarray, np.ndarray]:
    """Features per atom-sum, targets, predictions, and targets on the model's axis (NaN where undefined)."""
    samples = [model.evaluate(a) for a in structures]
    features = np.array([s.features[: model.readout.n_features - 2] for s in samples], dtype=float)
    predictions = np.array([model.dos(s) for s in samples])
    targets = [a.info["dos"] for a in structures]
    moved = [
        shifted_target(t, align(t, p, model.grid.step, 200).shift) for t, p in zip(targets, predictions, strict=True)
    ]
    return features, targets, predictions, np.array(moved)


def posterior_mean(x: np.ndarray, residual: np.ndarray, prior: np.ndarray, ratio: float) -> np.ndarray:
    """Change of the last layer, ``(n_features, n_channels)``; channels with the same defined structures are solved together."""
    update = np.zeros((x.shape[1], residual.shape[1]))
    defined = np.isfinite(residual)
    patterns, inverse = np.unique(defined, axis=1, return_inverse=True)
    for k in range(patterns.shape[1]):
        rows, channels = patterns[:, k], inverse.ravel() == k
        if rows.any():
            gram = x[rows].T @ x[rows] + prior / ratio**2
            update[:, channels] = np.linalg.solve(gram, x[rows].T @ residual[rows][:, channels])
    return update


def best_ratio(x: np.ndarray, residual: np.ndarray, prior: np.ndarray) -> float:
    """The one with the smallest error of structures left out in turn, five at a time for many."""
    folds = np.arange(len(x)) % min(len(x), 5)
    errors = []
    for ratio in RATIOS:
        total = 0.0
        for fold in np.unique(folds):
            out = folds == fold
            update = posterior_mean(x[~out], residual[~out], prior, ratio)
            total += float(np.nansum((residual[out] - x[out] @ update) ** 2))
        errors.append(total)
    return float(RATIOS[int(np.argmin(errors))])


if __name__ == "__main__":
    main()
