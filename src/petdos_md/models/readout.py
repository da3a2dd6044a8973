"""The linear map from features, the record of a frame, to the density of states and to every member of its ensemble.

With the features x = [phi, N, s] of a structure (last-layer features phi summed over atoms and edges, number of atoms, sum of the cutoff function over
edges) the DOS is ``A @ x`` and member k is ``A @ x + D[k] @ phi``, where D[k] is the deviation of the member's weights from
their mean. Both are linear, so averages may be taken of features and mapped once.

>>> readout = Readout.load("model.readout.safetensors")  # doctest: +SKIP
>>> readout.dos(features)                                     # doctest: +SKIP

Members are drawn by last-layer prediction rigidity (Bigi et al., Mach. Learn.: Sci. Technol. 5 (2024) 045018,
doi 10.1088/2632-2153/ad805f). Their weights are memory-mapped and never copied as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..base.errors import ModelError
from ..base.grid import EnergyGrid
from .rigidity import Rigidity

if TYPE_CHECKING:  # an analysis needs no torch, which takes seconds to import
    import torch

FORMAT = "petdos-readout-1"
MEMBER_BYTES = 64e6
"""Of a slice of members."""
RIGIDITY = "rigidity"
"""Name of the tensor and the entry of the header that hold what is known of the training set."""


class Readout:
    """Weights of the last layer and of its ensemble.

    :param grid: energies of the DOS
    :param weights: A, ``(n_channels, n_features)``
    :param deviations: D, ``(n_members, n_channels, n_last_layer)``, phi being the leading (models with separate readout) or the
        trailing (direct models) part of features; None if there is no ensemble
    :param fingerprint: identity of the model that the weights belong to
    :param direct: features begin with the DOS itself and the map picks it
    :param ancestors: fingerprints of models with the same backbone, but another ensemble (:mod:`petdos_md.validation.calibrate`) or last
        layer (:mod:`petdos_md.validation.refine`): their features are those of this one
    :param refined_from: those of the ancestors that have another last layer, so that their DOS is another

    Attributes ``rigidity`` (:class:`~petdos_md.models.rigidity.Rigidity`): how far features are from the training set, None if the file
    does not say; ``path`` of the file, None in memory.
    """

    def __init__(
        self,
        grid: EnergyGrid,
        weights: np.ndarray | torch.Tensor | None,
        deviations: np.ndarray | torch.Tensor | None,
        n_features: int,
        fingerprint: str = "",
        direct: bool = False,
        ancestors: tuple[str, ...] = (),
        refined_from: tuple[str, ...] = (),
    ) -> None:
        self.ancestors, self.refined_from = ancestors, refined_from
        self.path: Path | None = None
        self.rigidity: Rigidity | None = None
        self.grid, self.n_features, self.fingerprint, self.direct = grid, n_features, fingerprint, direct
        self._weights = None if weights is None else _as_array(weights).astype(np.float64)
        self._deviations = None if deviations is None else _as_array(deviations)
        self.n_members = 0 if deviations is None else int(deviations.shape[0])

    def __repr__(self) -> str:
        last = self.grid.energies[-1]
        return (
            f"<Readout: {self.n_features} features, {self.grid.n} energies from {self.grid.start:g} to {last:g} eV, "
            f"{self.n_members} members>"
        )

    @classmethod
    def from_arrays(
        cls, grid: EnergyGrid, A: np.ndarray, V: np.ndarray | None = None, fingerprint: str = ""
    ) -> Readout:
        """Make a readout of arrays in memory.

        :param A: ``(n_channels, n_features)``
        :param V: deviations of the members, ``(n_members, n_channels, n_last_layer)``; their mean is removed
        :raises ModelError: if the shapes do not fit together
        """
        weights = np.ascontiguousarray(A)
        deviations = None if V is None else np.ascontiguousarray(V - V.mean(axis=0))
        _check_shapes(grid, weights, deviations, "arrays")
        return cls(grid, weights, deviations, int(weights.shape[1]), fingerprint)

    @classmethod
    def for_direct(
        cls, grid: EnergyGrid, deviations: np.ndarray | torch.Tensor | None, n_last_layer: int, fingerprint: str
    ) -> Readout:
        """The readout of a model that is asked for its DOS: features are [DOS, phi]."""
        return cls(grid, None, deviations, grid.n + n_last_layer, fingerprint, direct=True)

    @classmethod
    def load(cls, path: str | Path) -> Readout:
        """Map a file written by :meth:`save` into memory.

        :raises ModelError: if the file is missing, truncated, or something else
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(
                f"{path}: no such readout; it is written beside the model by `petdos export`, keep both together"
            )
        try:
            # The library checks the file; the large tensor is mapped, not read.
            with safe_open(path, framework="np") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ModelError(
                        f"{path}: format is {header.get('format')!r}, expected {FORMAT!r}; export the model again with `petdos export`"
                    )
                weights = file.get_tensor("weights")
                has_ensemble = "deviations" in set(file.keys())
                rigidity = None
                if RIGIDITY in set(file.keys()):
                    rigidity = Rigidity.from_text(file.get_tensor(RIGIDITY), header[RIGIDITY])
        except SafetensorError as error:
            raise ModelError(
                f"{path}: not a readable readout ({error}); export the model again with `petdos export`"
            ) from None
        deviations = _map_tensor(path, "deviations") if has_ensemble else None
        grid = EnergyGrid.from_dict(json.loads(header["grid"]))
        _check_shapes(grid, weights, deviations, str(path))
        ancestors, refined_from = (tuple(json.loads(header.get(key, "[]"))) for key in ("ancestors", "refined_from"))
        fingerprint = header["fingerprint"]
        readout = cls(grid, weights, deviations, int(weights.shape[1]), fingerprint, False, ancestors, refined_from)
        readout.rigidity, readout.path = rigidity, path
        return readout

    @property
    def mean_weights(self) -> torch.Tensor:
        """A, ``(n_channels, n_features)``.

        :raises ModelError: for a direct model, which maps nothing
        """
        if self._weights is None:
            raise ModelError("this model has no separate readout; export its checkpoint with `petdos export`")
        import torch

        return torch.from_numpy(self._weights)

    @property
    def member_deviations(self) -> np.ndarray | None:
        """D, ``(n_members, n_channels, n_last_layer)``, mapped and not to be written to; None without ensemble."""
        return self._deviations

    def belongs_to(self, fingerprint: str) -> bool:
        """Whether features made by the model with this fingerprint fit this readout."""
        return fingerprint == self.fingerprint or fingerprint in self.ancestors

    def predicts_as(self, fingerprint: str) -> bool:
        """Whether the model with this fingerprint has the same DOS."""
        return self.belongs_to(fingerprint) and fingerprint not in self.refined_from

    @staticmethod
    def save(
        path: str | Path,
        grid: EnergyGrid,
        weights: torch.Tensor,
        deviations: torch.Tensor | None,
        fingerprint: str,
        ancestors: tuple[str, ...] = (),
        rigidity: Rigidity | None = None,
        refined_from: tuple[str, ...] = (),
    ) -> None:
        """Write a readout: safetensors with the tensors ``weights``, ``deviations`` and ``rigidity`` (a Cholesky factor) and a text header."""
        from safetensors.torch import save_file

        tensors = {"weights": weights.contiguous()}
        if deviations is not None:
            tensors["deviations"] = deviations.contiguous()
        header = {"format": FORMAT, "grid": json.dumps(grid.to_dict()), "fingerprint": fingerprint}
        for key, relatives in (("ancestors", ancestors), ("refined_from", refined_from)):
            if relatives:
                header[key] = json.dumps(relatives)
        if rigidity is not None:
            import torch

            tensors[RIGIDITY] = torch.tensor(rigidity.cholesky, dtype=torch.float32)
            header[RIGIDITY] = rigidity.to_text()
        save_file(tensors, str(path), metadata=header)

    def extrapolation_grade(self, features: np.ndarray) -> np.ndarray:
        """How far structures are from the training set (:mod:`petdos_md.models.rigidity`): ``(..., n_features)`` to ``(...)``, float64.

        NaN if the file of the model does not say; of models that are asked for their DOS none does.
        """
        features = self._checked(features)
        if self.rigidity is None:
            return np.full(features.shape[:-1], np.nan)
        # Behind the last-layer features come the number of atoms and the sum of the cutoff function.
        return self.rigidity.grade(features[..., : self.rigidity.n_last_layer], features[..., -2])

    @property
    def knows_training_set(self) -> bool:
        """Whether :meth:`extrapolation_grade` is known."""
        return self.rigidity is not None and self.rigidity.n_structures > 0

    def dos(self, features: np.ndarray) -> np.ndarray:
        """Density of states in states/eV per structure, both spins: ``(..., n_features)`` to ``(..., n_channels)``, float64."""
        features = self._checked(features)
        if self._weights is None:
            return np.asarray(features[..., : self.grid.n])
        return np.asarray(features @ self._weights.T)

    def members(self, features: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Members ``start`` to ``stop`` of the ensemble, ``(..., n_features)`` to ``(..., stop - start, n_channels)``, float64.

        The mean over all members is :meth:`dos`. Take slices of members to bound the memory.

        :raises ModelError: if the model has no ensemble
        """
        if self._deviations is None:
            raise ModelError(
                "this model has no ensemble, so there is no model error; export it with `petdos export PET.ckpt --llpr LLPR.ckpt`"
            )
        features = self._checked(features)
        weights = self._deviations[start : self.n_members if stop is None else stop]
        phi = self._last_layer(features).reshape(-1, weights.shape[2])
        flat = phi.astype(weights.dtype, copy=False) @ weights.reshape(-1, weights.shape[2]).T
        deviation = flat.reshape(*features.shape[:-1], len(weights), self.grid.n)
        result = deviation.astype(np.float64)
        result += self.dos(features)[..., None, :]
        return result

    def member_slices(self, features: np.ndarray) -> Iterator[np.ndarray]:
        """All members for ``features`` ``(n, n_features)``, in slices ``(n, k, n_channels)`` of bounded size."""
        step = max(1, int(MEMBER_BYTES / (8 * self.grid.n * len(features))))
        for start in range(0, self.n_members, step):
            yield self.members(features, start, min(start + step, self.n_members))

    def largest_terms(self, features: np.ndarray) -> float:
        """Largest sum of the absolute terms of one member's channel, max_kE sum_l |D_k(E, l) phi_l|, states/eV; ``features`` ``(n_features,)``.

        The rounding error of any order of summation is at most a few machine epsilons of it, however far the terms cancel
        (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1).
        """
        if self._deviations is None:
            return 0.0
        phi = np.abs(self._last_layer(self._checked(features))).astype(self._deviations.dtype)
        return max(float((np.abs(member) @ phi).max()) for member in self._deviations)

    def project(self, kernels: np.ndarray) -> np.ndarray:
        """Linear functionals of the DOS as vectors on features: ``kernels`` ``(..., n_channels)`` to ``(..., n_features)``, float64.

        ``project(k) @ features == k @ dos(features)``, for the cost of one short scalar product a frame.
        """
        kernels = np.asarray(kernels, dtype=np.float64)
        if kernels.shape[-1] != self.grid.n:
            raise ValueError(f"kernels have {kernels.shape[-1]} channels, the grid has {self.grid.n}")
        if self._weights is None:
            return np.concatenate([kernels, np.zeros((*kernels.shape[:-1], self.n_features - self.grid.n))], axis=-1)
        return np.asarray(kernels @ self._weights)

    def project_members(self, kernels: np.ndarray) -> np.ndarray:
        """As :meth:`project`, a functional for each member's own DOS: ``(n_members, n_channels)`` to ``(n_members, n_features)``.

        ``project_members(k)[i] @ features == k[i] @ members(features)[i]``

        :raises ModelError: if the model has no ensemble
        """
        if self._deviations is None:
            raise ModelError("this model has no ensemble, so there is no model error; export it with its ensemble")
        result = self.project(kernels)
        phi = self._last_layer(result)  # a view
        for i, member in enumerate(self._deviations):
            phi[i] += np.asarray(kernels[i]).astype(member.dtype) @ member
        return result

    def _last_layer(self, features: np.ndarray) -> np.ndarray:
        assert self._deviations is not None
        n = self._deviations.shape[2]
        return features[..., self.grid.n : self.grid.n + n] if self.direct else features[..., :n]

    def _checked(self, features: np.ndarray) -> np.ndarray:
        features = np.asarray(features, dtype=np.float64)
        if features.shape[-1] != self.n_features:
            raise ModelError(
                f"features have length {features.shape[-1]}, this readout expects {self.n_features}: it is of another model"
            )
        return features


def _as_array(values: Any) -> np.ndarray:
    """Of a tensor its own memory."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.detach().cpu())


def _map_tensor(path: Path, name: str) -> np.ndarray:
    """A tensor of a safetensors file (https://huggingface.co/docs/safetensors: size, JSON header, data), mapped."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
    dtype = {"F32": np.float32, "F64": np.float64}[entry["dtype"]]
    # Copy on write: what torch makes of it must be memory that it could write to, and nobody does.
    mapped = np.memmap(path, dtype, "c", offset=8 + size + entry["data_offsets"][0], shape=tuple(entry["shape"]))
    return mapped.view(np.ndarray)


def _check_shapes(grid: EnergyGrid, weights: np.ndarray, deviations: np.ndarray | None, where: str) -> None:
    fits = weights.ndim == 2 and weights.shape[0] == grid.n
    if deviations is not None:
        fits = (
            fits and deviations.ndim == 3 and deviations.shape[1] == grid.n and deviations.shape[2] <= weights.shape[1]
        )
    if not fits:
        got = f"weights {tuple(weights.shape)}, deviations {None if deviations is None else tuple(deviations.shape)}"
        raise ModelError(f"{where}: {got} do not fit an energy grid of {grid.n} points")
