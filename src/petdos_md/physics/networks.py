"""Networks that read a number off a predicted DOS: Fermi level, band gap, DOS at the Fermi level.

Section 4.5 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D): four blocks of a convolution (kernels 32, 16, 8, 8; 64
channels), SiLU and max pooling over 4 points, then two dense layers of 1024. They read the raw DOS of a whole structure,
divided by its number of atoms; never that of single atoms, because the answers are not sums over atoms.

>>> network = Network.load("fermi-model.pt", PET_MAD_GRID)                     # doctest: +SKIP
>>> levels = network(model.dos(sample)[None], n_atoms=64)                      # doctest: +SKIP

Files. ``.pt``: a state dict as published with PET-MAD-DOS (read with ``weights_only=True``), for the grid that it is loaded with.
``.safetensors``: written by :meth:`Network.save`; knows its target and grid. Beside ``NAME.pt``, ``NAME.fermi_level.safetensors``,
``NAME.gap.safetensors`` and ``NAME.dos_at_fermi_level.safetensors`` are the networks of a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..base.errors import ModelError
from ..base.grid import EnergyGrid
from .dos_network import DOSNetwork, flattened
from .network_inference import Inference

TARGETS = {"fermi_level": "eV", "gap": "eV", "dos_at_fermi_level": "states/eV"}
"""What networks exist for, and the unit of what they return (per structure)."""

FORMAT = "petdos-network-1"

_NAMES = [
    f"{layer}.{part}" for layer in ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2") for part in ("weight", "bias")
]


class Network:
    """A trained network for one quantity on one energy grid.

    What it returns: ``fermi_level`` in eV on the axis of the grid (the network itself counts from the first channel);
    ``gap`` in eV, never negative; ``dos_at_fermi_level`` in states/eV per structure (the network itself: per atom).

    :param module: :class:`DOSNetwork`
    :param target: one of :data:`TARGETS`
    :param source: where it came from, for messages and results
    :param model: fingerprint of the model whose predictions it was trained on, empty if not known
    """

    def __init__(self, module: DOSNetwork, grid: EnergyGrid, target: str, source: str = "", model: str = "") -> None:
        if target not in TARGETS:
            raise ModelError(f"a network for {target!r} is unknown, expected one of {', '.join(TARGETS)}")
        if flattened(grid.n) != module.fc1.in_features:
            raise ModelError(
                f"{source or 'network'}: is for another energy grid: its first dense layer has {module.fc1.in_features} inputs, "
                f"a grid of {grid.n} energies gives {flattened(grid.n)}"
            )
        self.module, self.grid, self.target, self.source, self.model = module.eval(), grid, target, source, model
        self._inference = Inference(module)

    def __repr__(self) -> str:
        return (
            f"<Network {self.target}: {self.grid.n} energies from {self.grid.start:g} eV, {self.source or 'in memory'}>"
        )

    @classmethod
    def load(cls, path: str | Path, grid: EnergyGrid | None = None, target: str | None = None) -> Network:
        """Read a network.

        :param grid: energies of the DOS that it will read; a file that knows its own must agree
        :param target: what it predicts; by default what the file says, or, for a state dict, what its name begins with
            (``fermi``, ``bandgap`` or ``gap``, ``dos``)
        :raises ModelError: if the file is missing, is something else, or belongs to another grid or target
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such network; expected the path of a .safetensors file")
        state, header = _read(path)
        found = header.get("target") or _target_of(path.name)
        if found is None and target is None:
            raise ModelError(f"{path}: does not say what it predicts; give target= one of {', '.join(TARGETS)}")
        if target is not None and header.get("target", target) != target:
            raise ModelError(f"{path}: is a network for {header['target']}, expected one for {target}")
        if "grid" in header:
            own = EnergyGrid.from_dict(json.loads(header["grid"]))
            if grid is not None and grid != own:
                raise ModelError(
                    f"{path}: is for another energy grid: {_explained(own)}, the DOS has {_explained(grid)}"
                )
            grid = own
        if grid is None:
            raise ModelError(f"{path}: does not give its energies; give grid=EnergyGrid(start, step, n)")
        module = DOSNetwork(grid.n, inputs=_inputs_of(state, path))
        module.load_state_dict(state)
        return cls(module, grid, target or str(found), path.name, header.get("model", ""))

    def save(self, path: str | Path) -> None:
        """Write ``.safetensors`` with the weights and a header that gives target, grid and model."""
        header = {"format": FORMAT, "target": self.target, "grid": json.dumps(self.grid.to_dict()), "model": self.model}
        tensors = {name: value.contiguous() for name, value in self.module.state_dict().items()}
        Path(path).write_bytes(save(tensors, metadata=header))  # save_file would let nobody else read it

    def __call__(self, dos: np.ndarray, n_atoms: int | np.ndarray) -> np.ndarray:
        """Predictions for total DOS of structures.

        :param dos: ``(..., n_channels)`` states/eV per structure, raw (not denoised)
        :param n_atoms: of the structures, broadcasts with ``(...)``
        :returns: ``(...)`` float64
        :raises ModelError: if the DOS is on another grid
        """
        dos = np.asarray(dos)
        if dos.shape[-1:] != (self.grid.n,):
            raise ModelError(
                f"{self.source or 'network'}: is for a grid of {self.grid.n} energies, got a DOS of shape {dos.shape}"
            )
        shape = dos.shape[:-1]
        atoms = np.broadcast_to(np.asarray(n_atoms, dtype=np.float64), shape)
        per_atom = (dos / atoms[..., None]).astype(np.float32).reshape(-1, self.grid.n)
        flat = self._inference(torch.from_numpy(per_atom))[:, 0].double().numpy()
        result = flat.reshape(shape)
        if self.target == "fermi_level":
            return result + self.grid.start
        return np.maximum(result, 0.0) * (atoms if self.target == "dos_at_fermi_level" else 1.0)


def networks_beside(model: str | Path, grid: EnergyGrid) -> dict[str, Network]:
    """The networks next to a model file, by target.

    :raises ModelError: if one of them is not readable or is for another grid
    """
    return {
        target: Network.load(network_path(model, target), grid, target)
        for target in TARGETS
        if network_path(model, target).is_file()
    }


def network_path(model: str | Path, target: str) -> Path:
    """Where the network of a model for one target lies."""
    return Path(model).with_name(f"{Path(model).stem}.{target}.safetensors")


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """State dict and header of a file."""
    header: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                state: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header.get("format") != FORMAT:
                raise ModelError(f"{path}: format is {header.get('format')!r}, expected {FORMAT!r}")
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except ModelError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{path}: not a readable network ({_first_line(error)})") from None
    except Exception as error:  # unpickling raises whatever it likes
        raise ModelError(
            f"{path}: is not a plain state dict ({_first_line(error)}); only tensors are read from such a file"
        ) from None
    return state, header


def _inputs_of(state: Any, path: Path) -> int:
    """Check names and shapes of a state dict; the number of inputs of its first dense layer."""
    if not isinstance(state, Mapping) or sorted(state) != sorted(_NAMES):
        names = ", ".join(sorted(map(str, state))[:4]) if isinstance(state, Mapping) else type(state).__name__
        raise ModelError(
            f"{path}: expected the parameters conv1 to conv4, fc1 and fc2 of a DOS network, got {names} ..."
        )
    shape = tuple(state["fc1.weight"].shape)
    inputs = int(shape[-1]) if len(shape) == 2 else 0
    expected = {name: tuple(value.shape) for name, value in DOSNetwork(256, inputs or 1).state_dict().items()}
    for name, wanted in expected.items():
        if tuple(state[name].shape) != wanted:
            raise ModelError(f"{path}: {name} has the shape {tuple(state[name].shape)}, expected {wanted}")
    return inputs


def _target_of(name: str) -> str | None:
    for beginning, target in {
        "fermi": "fermi_level",
        "bandgap": "gap",
        "gap": "gap",
        "dos": "dos_at_fermi_level",
    }.items():
        if name.startswith(beginning):
            return target
    return None


def _explained(grid: EnergyGrid) -> str:
    return f"{grid.n} energies from {grid.start:g} eV in steps of {grid.step:g} eV"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
