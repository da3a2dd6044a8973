"""The LLPR ensemble of the DOS head: members of the last layer whose spread is the error of the model.

Follows section 4.8 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D) with the LLPR model class of metatrain:

1. the covariance F^T F of the last-layer features comes from the training set (`compute_covariance`);
2. targets are aligned to the model's own axis of energy, channels that a target does not define are NaN;
3. members are drawn around the trained weights. metatrain draws each channel on its own; then the errors of neighboring channels
   cancel in every integral (electron number, heat capacity). Here channels are correlated as the residuals are, at the size
   that they have in each channel (shape from the training, overall size from the validation set);
4. the weights of the members are calibrated by Gaussian negative log-likelihood on the training set, and the epoch with the best
   likelihood on the validation set is kept. Last, every channel is scaled to the spread of the training residuals, and then
   by a factor that is smooth in energy to a z-score spread of one on the validation set.

`mtt train` with architecture `llpr` cannot do this in metatrain 2026.4.1: its calibration constant is one number per target and
refuses a target with many channels, and NaN makes its ensemble loss NaN. The result is a checkpoint of metatrain's `llpr`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import ase.io
import numpy as np
import torch
from metatrain.llpr import __model__ as LLPRModel
from metatrain.utils.data import DatasetInfo
from metatrain.utils.data.get_dataset import get_dataset
from metatrain.utils.io import load_model
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from petdos_md import DOSModel
from petdos_md.base.errors import SettingError
from petdos_md.base.grid import EnergyGrid
from petdos_md.models.export import export_model
from petdos_md.validation.metrics import align, rotated, shifted_target
from petdos_md.validation.residuals import autocorrelation, correlation_root

TARGET = "mtt::dos"
UNCERTAINTY = "mtt::aux::dos_uncertainty"
VALIDATION_EV = 1.5
"""The few validation structures set the size of the members' spread on this scale of energy, the training set sets finer shapes."""


def make_ensemble(
    checkpoint: Path, train: Path, validation: Path, output: Path, grid: EnergyGrid, options: dict
) -> None:
    """Write an LLPR checkpoint for a PET checkpoint.

    :param train, validation: extended XYZ with ``dos`` in ``info``, as written by ``train.py``
    :param options: the numbers of ``options/llpr.yaml``
    """
    torch.manual_seed(options["seed"])
    rng = np.random.default_rng(options["seed"])
    n_members = options["n_members"]
    model = wrapped(checkpoint, n_members)
    dataset = dos_dataset(train, grid.n)
    model.compute_covariance([dataset], min(4, len(dataset)), False)
    decompose(model, options["regularizer"])
    buffers = dict(model.named_buffers())
    cholesky = buffers[f"cholesky_{UNCERTAINTY}"].double().numpy()

    with tempfile.TemporaryDirectory() as folder:
        export_model(checkpoint, Path(folder) / "exported.pt", grid_start=grid.start, grid_step=grid.step)
        exported = DOSModel.load(Path(folder) / "exported.pt", device="cpu")
        data = {
            name: features_and_residuals(exported, path, options["rotations"], rng, options["max_shift"])
            for name, path in (("training", train), ("validation", validation))
        }
    print(f"targets aligned by {data['training'][2]} (training) and {data['validation'][2]} (validation) channels")

    # Training residuals are many and give the shape; validation residuals are honest and give the size.
    features, residuals, _ = data["training"]
    scale, correlation = residual_statistics(features, residuals, cholesky, grid.step)
    size = float(np.sqrt(np.nanmean(standardized(*data["validation"][:2], cholesky, scale) ** 2)))
    print(f"residuals of the validation set are {size:.2f} times those of the training set")
    scale *= size
    root = correlation_root(correlation)
    noise = rng.standard_normal((n_members, features.shape[1], root.shape[1])) @ root.T
    deviations = np.linalg.solve(cholesky.T, noise) * scale  # (members, features, channels)
    members = torch.tensor(np.swapaxes(deviations, 1, 2).copy(), dtype=torch.float32)
    members = calibrate(members, data["training"], data["validation"], options)
    members = rescale(members, data["training"][:2], data["validation"][:2], grid.step)

    names = model.model.last_layer_parameter_names[TARGET]
    state = model.model.state_dict()
    weights = torch.cat([state[name] for name in names], dim=-1).double()
    with torch.no_grad():
        layer = model.llpr_ensemble_layers[TARGET].weight
        layer.copy_((weights + (members - members.mean(dim=0)).double()).reshape(layer.shape).to(layer.dtype))
        # The number that metatrain multiplies its own analytic uncertainty with: that of a typical channel.
        buffers[f"multiplier_{UNCERTAINTY}"].fill_(float(np.sqrt(np.mean(scale**2))))
    torch.save(model.get_checkpoint(), output)


def decompose(model: torch.nn.Module, regularizer: float) -> float:
    """Factorize the covariance of the features; returns the number that was added to its diagonal.

    metatrain sums in single precision. Where rounding makes the smallest eigenvalues negative, the number is raised.
    """
    for added in regularizer * 10.0 ** np.arange(7):
        try:
            model.compute_cholesky_decomposition(float(added))
        except torch.linalg.LinAlgError:
            continue
        if added > regularizer:
            print(
                f"note: regularizer raised from {regularizer:g} to {added:g}, against rounding of the covariance; nothing is to be done"
            )
        return float(added)
    raise SettingError(
        f"the covariance of the features has no Cholesky factor with {added:g} on its diagonal; are there NaN in the training set?"
    )


def wrapped(checkpoint: Path, n_members: int) -> torch.nn.Module:
    """metatrain's LLPR model around a PET checkpoint."""
    pet = load_model(checkpoint)
    old = pet.dataset_info
    info = DatasetInfo(old.length_unit, list(old.atomic_types), {TARGET: old.targets[TARGET]})
    model = LLPRModel({"num_ensemble_members": {TARGET: n_members}}, info)
    model.set_wrapped_model(pet)
    return model.eval()


def dos_dataset(path: Path, n_channels: int) -> torch.utils.data.Dataset:
    """Structures and their DOS as metatrain reads them."""
    target = {
        "quantity": "", "read_from": str(path), "reader": "ase", "key": "dos", "unit": "", "sample_kind": "system",
        "per_atom": False, "type": "scalar", "num_subtargets": n_channels, "description": "",
    }  # fmt: skip
    systems = {"read_from": str(path), "reader": "ase", "length_unit": "angstrom"}
    return get_dataset(OmegaConf.create({"systems": systems, "targets": {TARGET: target}}))[0]


def features_and_residuals(
    exported: DOSModel, path: Path, rotations: int, rng: np.random.Generator, max_shift: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Last-layer features, and target minus prediction with NaN where undefined, for randomly rotated structures."""
    features, residuals, shifts = [], [], []
    for atoms in ase.io.read(path, ":"):
        turns = Rotation.random(rotations, random_state=int(rng.integers(2**31))).as_matrix()
        copies = [rotated(atoms, turn) for turn in turns]
        samples = exported.evaluate([atoms, *copies])
        predictions = [exported.dos(s) for s in samples]
        best = align(atoms.info["dos"], predictions[0], exported.grid.step, max_shift).shift
        target = shifted_target(atoms.info["dos"], best)
        shifts.append(best)
        features += [s.features[: exported.readout.n_features - 2] for s in samples]
        residuals += [target - p for p in predictions]
    summary = f"{min(shifts)} to {max(shifts)}, mean {np.mean(shifts):.2f}"
    return np.array(features, dtype=np.float64), np.array(residuals), summary


def residual_statistics(
    features: np.ndarray, residuals: np.ndarray, cholesky: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Size of the error per channel in units of the LLPR deviation, and correlation of channels by distance: both ``(n_channels,)``.

    The size is that of a Gaussian with the mean absolute value found: a few structures far off shall not set the scale of all.
    """
    ratio = standardized(features, residuals, cholesky, np.ones(residuals.shape[1]))
    defined = np.isfinite(ratio)
    count = gaussian_filter1d(defined.sum(axis=0).astype(float), 0.3 / step)
    total = gaussian_filter1d(np.where(defined, np.abs(ratio), 0.0).sum(axis=0), 0.3 / step)
    scale = fill_end(np.sqrt(np.pi / 2) * total / np.maximum(count, 1e-12), defined.any(axis=0))
    return scale, autocorrelation(ratio / scale)


def fill_end(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Channels above all targets take the value of the last one that is known."""
    last = np.flatnonzero(known)[-1]
    return np.where(np.arange(len(values)) > last, values[last], values)


def standardized(features: np.ndarray, residuals: np.ndarray, cholesky: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Residuals in units of scale sqrt(f (F^T F)^-1 f), the deviation that the LLPR assigns to a structure."""
    deviation = np.sqrt((np.linalg.solve(cholesky, features.T) ** 2).sum(axis=0))
    return residuals / (deviation[:, None] * scale)


def calibrate(members: torch.Tensor, training: tuple, validation: tuple, options: dict) -> torch.Tensor:
    """Gaussian negative log-likelihood of the residuals, minimized over the weights of the members."""

    def likelihood(weights: torch.Tensor, features: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        spread = torch.einsum("mcf,sf->msc", weights - weights.mean(dim=0), features)
        variance = spread.var(dim=0) + 1e-12
        defined = torch.isfinite(residuals)
        # NaN must not enter the formula: its gradient would stay NaN after the selection.
        loss = 0.5 * (residuals[defined] ** 2 / variance[defined] + torch.log(variance[defined]))
        return loss.mean()

    train_x, train_r = (torch.tensor(a, dtype=torch.float32) for a in training[:2])
    valid_x, valid_r = (torch.tensor(a, dtype=torch.float32) for a in validation[:2])
    # Steps in proportion to the spread that a weight has among the members: channels differ by orders of magnitude.
    size = members.std(dim=0, keepdim=True)
    free = torch.nn.Parameter(torch.zeros_like(members))
    optimizer = torch.optim.Adam([free], lr=options["learning_rate"])
    best, kept = float("inf"), members
    for epoch in range(options["n_epochs"] + 1):
        with torch.no_grad():
            weights = members + size * free
            score = float(likelihood(weights, valid_x, valid_r))
        if score < best:
            best, kept = score, weights.clone()
        loss = 0.0
        for batch in torch.randperm(len(train_x)).split(options["batch_size"]):
            optimizer.zero_grad()
            value = likelihood(members + size * free, train_x[batch], train_r[batch])
            value.backward()
            optimizer.step()
            loss += float(value.detach()) * len(batch) / len(train_x)
        if epoch % 2 == 0:
            print(f"epoch {epoch}: NLL training {loss:.4f}, validation {score:.4f}, best {best:.4f}", flush=True)
    return kept


def rescale(members: torch.Tensor, training: tuple, validation: tuple, step: float) -> torch.Tensor:
    """Even out the channels by the training set, then set the size, smooth in energy, by the validation set."""
    center = members.mean(dim=0)
    z = z_scores(members, *training)
    known = np.isfinite(z).any(axis=0)
    with np.errstate(invalid="ignore"):
        typical = np.sqrt(np.pi / 2) * np.nansum(np.abs(z), axis=0) / np.isfinite(z).sum(axis=0)
    members = center + (members - center) * torch.tensor(fill_end(typical, known), dtype=members.dtype)[:, None]
    z = z_scores(members, *validation)
    z = np.where(np.isfinite(z).sum(axis=0) >= len(z) / 2, z, np.nan)
    known = np.isfinite(z).any(axis=0)
    width = VALIDATION_EV / step
    total = gaussian_filter1d(np.nansum(z**2, axis=0), width)
    count = gaussian_filter1d(np.where(known, np.isfinite(z).sum(axis=0), 0).astype(float), width)
    spread = fill_end(np.sqrt(total / np.maximum(count, 1e-12)), known)
    print(
        f"z-scores on the validation set: spread of {spread[known].min():.2f} to {spread[known].max():.2f}, scaled to one"
    )
    return center + (members - center) * torch.tensor(spread, dtype=members.dtype)[:, None]


def z_scores(members: torch.Tensor, features: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Residual over spread of the members: ``(n_structures, n_channels)``, NaN where the target is undefined."""
    deviations = (members - members.mean(dim=0)).double().numpy()
    return residuals / np.einsum("mcf,sf->msc", deviations, features).std(axis=0, ddof=1)
