"""Runs whose temperature changes, as in melting and quenching: averages over windows of consecutive frames, along each replica.

>>> data = ramp("run.zarr", window=20)                                       # doctest: +SKIP
>>> data["heat_capacity"].where(data["rate"] > 0, drop=True)                 # of the windows in which it warms up     # doctest: +SKIP

Frames of heating and of cooling at one temperature are of different states, and are never averaged together here. A window has no sampling
error: its frames are not a stationary series. What it has is the scatter of its neighbors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..base.errors import NoSamplesError, SettingError
from ..models.readout import Readout
from ..physics.quantities import QUANTITIES, derive, derive_members
from ..traces.trace import HasModelInfo, Trace
from .frames import check_replicas
from .inputs import TraceLike, find_readout, open_traces

RAMP_QUANTITIES = ("heat_capacity", "chemical_potential", "fermi_level", "gap", "dos_at_fermi_level", "entropy")
MIN_TEMPERATURES = 4
"""A replica with so many ensemble temperatures is a ramp."""


def ramp(
    traces: TraceLike | Sequence[TraceLike],
    model: HasModelInfo | Readout | str | os.PathLike[str] | None = None,
    *,
    window: int = 20,
    steps: tuple[int | None, int | None] = (None, None),
    replicas: Sequence[int] | None = None,
    members: bool = True,
) -> xr.Dataset:
    """Averages over windows, in the order of time along each replica.

    :param traces, model: as for :func:`petdos_md.analyze`
    :param window: frames in each; what is left at the end of a replica joins the last one
    :param steps: first and last step; None for no limit
    :param replicas: those of these replicas only; all if None
    :param members: whether to evaluate the ensemble; without it model errors are NaN
    :returns: dimension ``window``; ``temperature`` (K, mean target of the thermostat), ``rate`` (K/ps, negative while it cools), ``time``
        (ps), ``electronic_temperature`` (K, mean of hot electrons, NaN for cold ones), and quantities, at the temperature of the electrons,
        with ``_model_std``
    :raises SettingError: if a window has no frames
    :raises NoSamplesError, TraceError, ModelError: as :func:`petdos_md.analyze`
    """
    if window < 1:
        raise SettingError(f"window={window} given, expected at least one frame")
    opened = [trace for trace in open_traces(traces) if len(trace)]
    if not opened:
        raise NoSamplesError("no samples yet; run some steps before analyzing")
    readout = find_readout(model, opened[0].model, str(opened[0].path))
    if replicas is not None:
        check_replicas(opened, np.concatenate([trace.replica for trace in opened]), replicas)
    windows = [w for index, trace in enumerate(opened) for w in _windows(trace, index, window, steps, replicas)]
    if not windows:
        raise NoSamplesError(f"{opened[0].path}: no samples of these steps and replicas; give others")
    features = np.stack([w.features for w in windows])
    temperatures, hot, electrons, sizes = (
        np.array([getattr(w, name) for w in windows])
        for name in ("temperature_K", "electronic_temperature_K", "n_electrons", "n_atoms")
    )
    temperatures = np.where(np.isnan(hot), temperatures, hot)
    energies, dos = readout.grid.energies, readout.dos(features)
    own = derive(energies, dos, electrons, temperatures, RAMP_QUANTITIES, n_atoms=sizes)
    std = {name: np.full(len(windows), np.nan) for name in RAMP_QUANTITIES}
    if members and readout.n_members > 1:
        slices = readout.member_slices(features)
        found = derive_members(energies, slices, dos, electrons, temperatures, RAMP_QUANTITIES, n_atoms=sizes)
        std = {name: found.std(name) for name in RAMP_QUANTITIES}
    variables = {}
    for name in RAMP_QUANTITIES:
        quantity = QUANTITIES[name]
        about = {"units": quantity.unit, "long_name": quantity.description}
        variables[name] = "window", own[name], about
        variables[f"{name}_model_std"] = (
            "window",
            std[name],
            {"units": quantity.unit, "long_name": f"model error of {name}"},
        )
    return _dataset(variables, windows, opened, window)


def is_ramp(temperature_K: np.ndarray, segment: np.ndarray) -> bool:
    """Whether the ensemble temperature changes along one of the series, more than a few times."""
    return any(len(np.unique(temperature_K[segment == s])) >= MIN_TEMPERATURES for s in np.unique(segment))


@dataclass(frozen=True, eq=False)
class _Window:
    source: int
    replica: int
    first_step: int
    last_step: int
    time_ps: float
    temperature_K: float
    electronic_temperature_K: float
    rate_K_ps: float
    n_frames: int
    n_atoms: int
    n_electrons: float
    potential_energy_eV: float
    features: np.ndarray


def _windows(
    trace: Trace, index: int, window: int, steps: tuple[int | None, int | None], replicas: Sequence[int] | None
) -> list[_Window]:
    step, replica = trace.step, trace.replica
    first, last = steps
    keep = (step >= (step.min() if first is None else first)) & (step <= (step.max() if last is None else last))
    found = []
    for number in np.unique(replica[keep]):
        if replicas is not None and number not in replicas:
            continue
        rows = np.flatnonzero(keep & (replica == number))
        rows = rows[np.argsort(step[rows], kind="stable")]
        starts = list(range(0, max(len(rows) - window, 0) + 1, window))
        for k, start in enumerate(starts):
            mine = rows[start : starts[k + 1] if k + 1 < len(starts) else None]
            found.append(_average(trace, index, int(number), mine))
    return found


def _average(trace: Trace, index: int, replica: int, rows: np.ndarray) -> _Window:
    weights = trace.weight[rows]
    if not weights.sum() > 0:
        weights = np.ones(len(rows))
    weights = weights / weights.sum()
    time, temperature = trace.time_fs[rows] / 1000, trace.temperature_K[rows]
    known = len(rows) > 1 and np.isfinite(time).all() and np.ptp(time) > 0
    step = trace.step[rows]
    return _Window(
        source=index,
        replica=replica,
        first_step=int(step[0]),
        last_step=int(step[-1]),
        time_ps=float(weights @ time),
        temperature_K=float(weights @ temperature),
        electronic_temperature_K=float(f"{weights @ trace.electronic_temperature_K[rows]:.12g}"),
        rate_K_ps=float(np.polyfit(time - time.mean(), temperature, 1)[0]) if known else float("nan"),
        n_frames=len(rows),
        n_atoms=int(trace.n_atoms[rows[0]]),
        n_electrons=float(trace.n_electrons[rows[0]]),
        potential_energy_eV=float(weights @ trace.potential_energy_eV[rows]),
        features=weights @ np.asarray(trace.features[rows], dtype=float),
    )


def _dataset(variables: dict, windows: list[_Window], traces: list[Trace], window: int) -> xr.Dataset:
    for name, attribute, unit, note in (
        ("potential_energy", "potential_energy_eV", "eV", "mean energy of the interatomic potential"),
        ("rate", "rate_K_ps", "K/ps", "change of the target temperature; negative while it cools"),
        ("n_frames", "n_frames", "1", "frames averaged"),
        ("n_atoms", "n_atoms", "1", "atoms per structure"),
    ):
        variables[name] = (
            "window",
            np.array([getattr(w, attribute) for w in windows]),
            {"units": unit, "long_name": note},
        )
    coords = {
        "temperature": (
            "window",
            [w.temperature_K for w in windows],
            {"units": "K", "long_name": "mean target temperature"},
        ),
        "electronic_temperature": (
            "window",
            [w.electronic_temperature_K for w in windows],
            {"units": "K", "long_name": "mean temperature of hot electrons"},
        ),
        "time": ("window", [w.time_ps for w in windows], {"units": "ps", "long_name": "mean simulated time"}),
        "trace": ("window", [str(traces[w.source].path) for w in windows]),
        "replica": ("window", [w.replica for w in windows]),
        "first_step": ("window", [w.first_step for w in windows]),
        "last_step": ("window", [w.last_step for w in windows]),
    }
    attributes = {"model": traces[0].model.name, "frames_per_window": window, "sources": [str(t.path) for t in traces]}
    return xr.Dataset(variables, coords, attributes)
