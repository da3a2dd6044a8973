"""What every analysis begins with: frames, the readout of their model, numbers of electrons, temperatures.

>>> inputs = read_inputs("run.zarr", None, FrameSelection(burn_in=500))      # doctest: +SKIP
>>> inputs.frames.temperatures_K, inputs.n_electrons                         # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import ModelError, SettingError
from ..base.sample import ModelInfo
from ..base.temperatures import check_constant
from ..models.readout import Readout
from ..traces.trace import HasModelInfo, Trace
from .burn_in import Cut, cut_drifts
from .frames import Frames
from .options import FrameSelection

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from ..physics.networks import Network

TraceLike = Trace | str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of each result, all ``(n,)``.

    :param temperatures_K: of the electrons
    :param group: of frames, by ensemble temperature
    :param n_electrons: per structure
    :param n_atoms: per structure
    :param of_frames: the temperatures are those that the electrons of the frames had
    """

    temperatures_K: np.ndarray
    group: np.ndarray
    n_electrons: np.ndarray
    n_atoms: np.ndarray
    of_frames: bool = False


@dataclass(frozen=True, eq=False)
class Inputs:
    """Frames in groups, one for each ensemble temperature, and what maps their features.

    :param n_electrons: per structure of each group, ``(n_groups,)``
    :param n_atoms: per structure of each group, ``(n_groups,)``
    :param cuts: what ``burn_in="auto"`` left out; None without it
    """

    frames: Frames
    readout: Readout
    n_electrons: np.ndarray
    n_atoms: np.ndarray
    cuts: list[Cut] | None = None

    def burn_in(self, selection: FrameSelection) -> dict[str, Any]:
        """Attributes of a result that say what was left out."""
        if self.cuts is None:
            return {"burn_in": int(selection.burn_in)}
        return {"burn_in": "auto", "burn_in_found": [str(cut) for cut in self.cuts] or ["no drift"]}

    def conditions(self, electronic_temperatures_K: Sequence[float] | str | None = None) -> Conditions:
        """Electrons at the temperatures of the ensembles, at others, or (``frames``) at those of the hot electrons of the frames.

        :raises SettingError: if a temperature is not positive, others are given and the frames are of several ensembles, or frames do not
            record the temperature of their electrons
        """
        temperatures, group = _electronic_temperatures(self.frames, electronic_temperatures_K)
        of_frames = isinstance(electronic_temperatures_K, str)
        return Conditions(temperatures, group, self.n_electrons[group], self.n_atoms[group], of_frames)


def read_inputs(
    traces: TraceLike | Sequence[TraceLike],
    model: HasModelInfo | Readout | str | os.PathLike[str] | None,
    selection: FrameSelection,
    n_electrons: float | None = None,
) -> Inputs:
    """Open traces, select frames, find the readout.

    :param n_electrons: per structure, in place of those of the samples
    :raises NoSamplesError, TraceError, ModelError, StructureError, SettingError: as :func:`petdos_md.analyze`
    """
    frames = Frames(open_traces(traces), selection)
    readout = find_readout(model, frames.model, str(frames.traces[0].path))
    electrons = _electrons_per_group(frames, n_electrons)
    sizes = np.array([int(frames.n_atoms[frames.group == index][0]) for index in range(len(electrons))])
    cuts = cut_drifts(frames, readout, electrons) if selection.burn_in == "auto" else None
    return Inputs(frames, readout, electrons, sizes, cuts)


def open_traces(traces: TraceLike | Sequence[TraceLike]) -> list[Trace]:
    """Traces, opened for reading where paths are given."""
    listed = [traces] if isinstance(traces, Trace | str | os.PathLike) else list(traces)
    return [trace if isinstance(trace, Trace) else Trace.open(trace, "r") for trace in listed]


def find_readout(model: HasModelInfo | Readout | str | os.PathLike[str] | None, info: ModelInfo, where: str) -> Readout:
    """The readout, of ``model`` or of the model that the trace names, if it belongs to the trace."""
    if model is None or isinstance(model, str | os.PathLike):
        from ..models.files import find_model, readout_path

        if model is None and not info.path:
            raise ModelError(f"{where}: its model {info.name!r} was never stored in a file; give model=PATH (--model)")
        path = info.path if model is None else os.fspath(model)
        try:
            # The backbone is not needed, only what maps features.
            beside = readout_path(find_model(path))
            found = Readout.load(beside) if beside.is_file() else _direct_readout(path, info)
        except ModelError as error:
            if model is not None:
                raise
            raise ModelError(
                f"{where}: its model {info.name!r} cannot be loaded ({error}); if it has moved, give model=PATH (--model)"
            ) from None
    else:
        found = model if isinstance(model, Readout) else model.readout  # type: ignore[attr-defined]
    if not found.belongs_to(info.fingerprint) or found.n_features != info.n_features:
        raise ModelError(
            f"{where}: its samples were made by {info.name!r} ({info.fingerprint[:12]}), got a model with fingerprint "
            f"{found.fingerprint[:12] or 'unknown'}; give the model that made them, from {Path(info.path) if info.path else 'where it is'}"
        )
    return found


def model_attributes(info: ModelInfo, readout: Readout | None) -> dict[str, str]:
    """Of results: the model that sampled, and the readout that made DOS of its samples where that is another (refined, calibrated).

    :param info: of the trace
    :param readout: None if no DOS was made
    """
    attributes = {"model": info.name, "model_fingerprint": info.fingerprint}
    if readout is not None and readout.fingerprint != info.fingerprint:
        attributes["readout_fingerprint"] = readout.fingerprint
        attributes["readout_path"] = "" if readout.path is None else str(readout.path.resolve())
    return attributes


def _direct_readout(path: str, info: ModelInfo) -> Readout:
    """Of a model that knows its DOS only by evaluating it."""
    from ..models.model import DOSModel

    return DOSModel.load(path, grid=info.grid).readout


def fermi_network(
    choice: str | Path | Network | bool,
    model: HasModelInfo | Readout | str | os.PathLike[str] | None,
    info: ModelInfo,
    readout: Readout,
) -> Network | None:
    """The network that gives the Fermi levels of raw DOS, None for the integral of the raw DOS.

    :param choice: ``integration`` or True; ``network``, the one beside the model; a :class:`~petdos_md.physics.networks.Network` or its file
    :raises ModelError: if a network is asked for and is not there, or is of another model or grid
    """
    if choice is True or choice == "integration":
        return None
    from ..physics.networks import Network

    if isinstance(choice, Network):
        network = choice
    elif isinstance(choice, Path) or (isinstance(choice, str) and choice != "network"):
        network = Network.load(choice, readout.grid, "fermi_level")
    else:
        found = find_networks(model, info, readout)
        if "fermi_level" not in found:
            raise ModelError(
                f"{info.name}: no network for the Fermi level lies beside the model; train one (examples/training/networks.py), "
                "give its file, or use integration"
            )
        network = found["fermi_level"]
    return check_network(network, readout, "fermi_level")


def find_networks(
    model: HasModelInfo | Readout | str | os.PathLike[str] | None, info: ModelInfo, readout: Readout
) -> dict[str, Network]:
    """Networks beside the model of a trace, by target; empty for a model in memory, or if its file is gone."""
    from ..models.files import find_model
    from ..physics.networks import networks_beside

    path = info.path if model is None else model if isinstance(model, str | os.PathLike) else getattr(model, "path", "")
    if not path:
        return {}
    try:
        file = find_model(os.fspath(path))
    except ModelError:  # a trace outlives its model
        return {}
    found = networks_beside(file, readout.grid)
    return {target: check_network(network, readout, target) for target, network in found.items()}


def check_network(network: Network, readout: Readout, target: str) -> Network:
    """The network, if it is for this target and model.

    :raises ModelError: if it is not
    """
    if network.target != target:
        raise ModelError(f"{network.source}: is a network for {network.target}, expected one for {target}")
    if network.grid != readout.grid:
        raise ModelError(
            f"{network.source}: is for another energy grid, {network.grid.n} energies from {network.grid.start:g} eV; the model has "
            f"{readout.grid.n} from {readout.grid.start:g} eV"
        )
    if network.model and not readout.predicts_as(network.model):
        raise ModelError(f"{network.source}: was trained on predictions of another model; train it again for this one")
    return network


def _electrons_per_group(frames: Frames, n_electrons: float | None) -> np.ndarray:
    """Number of electrons of every temperature, ``(n_groups,)``."""
    if n_electrons is not None:
        # Frames are of one material here: a number for one structure is right for all.
        return np.full(len(frames.temperatures_K), float(n_electrons))
    result = []
    for index, temperature in enumerate(frames.temperatures_K):
        rows = frames.group == index
        check_constant(float(temperature), frames.n_atoms[rows], frames.n_electrons[rows], known=True)
        result.append(float(frames.n_electrons[rows][0]))
    return np.array(result)


def _electronic_temperatures(
    frames: Frames, temperatures_K: Sequence[float] | str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures of the electrons (K), and the group of frames that belongs to each.

    :raises SettingError: as :meth:`Inputs.conditions`
    """
    groups = np.arange(len(frames.temperatures_K))
    if temperatures_K is None:
        return frames.temperatures_K, groups
    if isinstance(temperatures_K, str) and temperatures_K == "frames":
        cold = (frames.group >= 0) & np.isnan(frames.electronic_temperature_K)
        if cold.any():
            where = frames.temperatures_K[frames.group[cold][0]]
            raise SettingError(
                f"frames at {where:g} K do not record the temperature of their electrons; give numbers of K in place of 'frames'"
            )
        # To digits that no rounding of a mean touches: 8000 K stays 8000 K.
        means = [float(f"{frames.mean_of(frames.electronic_temperature_K, int(g)):.12g}") for g in groups]
        return np.array(means), groups
    if len(frames.temperatures_K) > 1:
        listed = ", ".join(f"{t:g}" for t in frames.temperatures_K)
        raise SettingError(
            f"temperatures of the electrons need frames of one ensemble, got {listed} K; choose one of these (temperatures_K, --temperature)"
        )
    values = np.asarray(temperatures_K, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (np.isfinite(values).all() and (values > 0).all()):
        raise SettingError(
            f"electronic_temperatures_K={temperatures_K} given, expected a list of positive temperatures in K"
        )
    return values, np.zeros(len(values), dtype=int)
