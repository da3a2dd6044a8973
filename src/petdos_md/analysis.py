"""From traces to results: the thermal-average DOS and what follows from it, each with a model and a sampling error.

>>> result = analyze("run.zarr", reference="fermi")                            # doctest: +SKIP
>>> result["heat_capacity"].sel(temperature=300)                               # doctest: +SKIP
>>> result["dos"], result["dos_model_std"], result["dos_sampling_err"]         # doctest: +SKIP

Definitions. Averages over frames are taken first, of the DOS of the model and of each member of its ensemble; each member's
quantities follow from that member's average (paper, Figs. 6 and 7, DOI 10.1039/D5DD00557D).

- *Value*: the mean over members, as in the paper; without an ensemble, the value of the mean DOS. For the DOS itself the
  two are one. ``heat_capacity_mean_dos`` is the heat capacity of the mean DOS.
- ``_model_std``: standard deviation over members (``n - 1``).
- ``_sampling_err``: standard error of the finite, correlated series of frames (:mod:`petdos_md.statistics`), to first order
  in the fluctuation of the DOS. The two errors have different causes and cures and are never added up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from . import thermo
from .averages import FrameTransform, check_constant
from .dataset import build_dataset, relative_to_fermi
from .errors import ModelError
from .frames import Frames
from .group_averages import FermiAlignment, FrameByFrameAverages, GroupAverages, LinearAverages, relative_energies
from .quantities import LINEAR, derive, derive_members, kernels
from .readout import Readout
from .sample import ModelInfo
from .statistics import METHODS
from .trace import HasModelInfo, Trace

TraceLike = Trace | str | os.PathLike[str]


def analyze(
    traces: TraceLike | Sequence[TraceLike],
    model: HasModelInfo | Readout | str | os.PathLike[str] | None = None,
    *,
    temperatures_K: Sequence[float] | None = None,
    reference: str = "raw",
    align: str = "average",
    burn_in: int = 0,
    replicas: Sequence[int] | None = None,
    error_method: str = "autocorrelation",
    n_electrons: float | None = None,
    electronic_temperatures_K: Sequence[float] | None = None,
    transform: FrameTransform | None = None,
    members: bool = True,
    keep_members: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Thermal averages per ensemble temperature.

    :param traces: a :class:`~petdos_md.trace.Trace`, the path of one, or several of one model
    :param model: a DOSModel, its Readout, or where it lies; by default the model that the trace names
    :param temperatures_K: analyze these ensemble temperatures only
    :param reference: zero of the energy axis of the DOS: ``raw`` (the model's own, which has no meaning) or ``fermi`` (the
        Fermi level at each temperature; the DOS is interpolated linearly)
    :param align: ``average``, or ``frames``: the DOS of every frame and member is shifted to its own Fermi level before it is
        averaged, so that shifts of the axis from frame to frame do not smear it; needs ``reference="fermi"``
    :param burn_in: leave out samples with a smaller step
    :param replicas: keep these replicas only
    :param error_method: ``autocorrelation`` or ``blocking``
    :param n_electrons: per structure, if the model does not know it or to replace what it knows
    :param electronic_temperatures_K: evaluate the Fermi function at these temperatures rather than at that of the ensemble, of
        which there must then be one
    :param transform: applied to the DOS of every frame and member before averaging (see
        :class:`~petdos_md.averages.FrameTransform`), on the same energies
    :param members: whether to evaluate the ensemble; otherwise all model errors are NaN
    :param keep_members: store the average DOS of every member as ``dos_members``
    :param progress: called with the work done and the total
    :returns: dimensions ``temperature`` (K), ``energy`` (eV), ``member``; every variable names its unit in
        ``attrs["units"]``; energies and capacities are per structure (of ``n_atoms``); ``attrs["notes"]``, if there, says what
        to beware of
    :raises NoSamplesError: if there are no samples, or none are left
    :raises TraceError: if traces do not belong together, or lack a temperature or replica
    :raises ModelError: if the model is not there or is not that of the trace
    :raises StructureError: if composition varies within a temperature, or the number of electrons is not known
    :raises ChemicalPotentialError: if a member cannot hold the electrons on the energy grid
    """
    _check_choices(reference, align, error_method, burn_in, n_electrons)
    frames = Frames(_open(traces), temperatures_K, burn_in, replicas)
    readout = _readout(model, frames.model, str(frames.traces[0].path))
    electrons = _electrons(frames, n_electrons)
    temperatures, which = _electronic(frames, electronic_temperatures_K)
    with_members = members and readout.n_members > 0

    averages: GroupAverages
    if transform is None and align == "average":
        averages = LinearAverages(frames, readout, progress)
    else:
        energies, transforms = _transforms(frames, readout, transform, align, electrons)
        averages = FrameByFrameAverages(frames, readout, transforms, energies, with_members, progress)

    energies, dos, n_el = averages.energies, averages.dos[which], electrons[which]
    central = derive(energies, dos, n_el, temperatures)
    ensemble = None
    if with_members:
        ensemble = derive_members(energies, (s[which] for s in averages.member_slices()), dos, n_el, temperatures)
    functionals = np.empty((len(temperatures), len(LINEAR), len(energies)))
    for i, temperature in enumerate(temperatures):
        found = kernels(energies, dos[i], float(n_el[i]), float(temperature))
        functionals[i] = [found[name] for name in LINEAR]
    errors, dos_err = averages.sampling(functionals, which, error_method)

    dataset = build_dataset(
        frames,
        readout,
        energies,
        temperatures,
        which,
        dos=dos,
        dos_sampling_err=dos_err[which],
        central=central,
        ensemble=ensemble,
        errors=errors,
        n_electrons=n_el,
        energy_zero="raw" if align == "average" else "fermi",
    )
    if with_members and keep_members:
        whole = np.concatenate([s[which] for s in averages.member_slices()], axis=1)
        dataset["dos_members"] = ("temperature", "member", "energy"), whole, dict(dataset["dos"].attrs)
    dataset.attrs |= {
        "align": align,
        "error_method": error_method,
        "burn_in": int(burn_in),
        "transform": "none" if transform is None else getattr(transform, "__name__", type(transform).__name__),
    }
    return relative_to_fermi(dataset) if reference == "fermi" and align == "average" else dataset


def _check_choices(reference: str, align: str, error_method: str, burn_in: int, n_electrons: float | None) -> None:
    for name, value, known in (
        ("reference", reference, ("raw", "fermi")),
        ("align", align, ("average", "frames")),
        ("error_method", error_method, METHODS),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r} given, expected one of {', '.join(known)}")
    if align == "frames" and reference != "fermi":
        raise ValueError(
            "align='frames' puts the energy zero at the Fermi level of each frame; give reference='fermi' with it"
        )
    if burn_in < 0:
        raise ValueError(f"burn_in={burn_in} given, expected a number of steps >= 0")
    if n_electrons is not None and not 0 < n_electrons < np.inf:
        raise ValueError(f"n_electrons={n_electrons} given, expected a positive number, that of the whole structure")


def _open(traces: TraceLike | Sequence[TraceLike]) -> list[Trace]:
    listed = [traces] if isinstance(traces, Trace | str | os.PathLike) else list(traces)
    return [trace if isinstance(trace, Trace) else Trace.open(trace, "r") for trace in listed]


def _readout(model: HasModelInfo | Readout | str | os.PathLike[str] | None, info: ModelInfo, where: str) -> Readout:
    """The readout, of ``model`` or of the model that the trace names, if it belongs to the trace."""
    if model is None or isinstance(model, str | os.PathLike):
        from .model import DOSModel
        from .model_files import find_model, readout_path

        if model is None and not info.path:
            raise ModelError(f"{where}: its model {info.name!r} was never stored in a file; give model=...")
        path = info.path if model is None else os.fspath(model)
        try:
            # The trunk is not needed, only what maps psi.
            beside = readout_path(find_model(path))
            found = Readout.load(beside) if beside.is_file() else DOSModel.load(path, grid=info.grid).readout
        except ModelError as error:
            if model is not None:
                raise
            raise ModelError(
                f"{where}: its model {info.name!r} cannot be loaded ({error}); if it has moved, give model=PATH"
            ) from None
    else:
        found = model if isinstance(model, Readout) else model.readout  # type: ignore[attr-defined]
    if found.fingerprint != info.fingerprint or found.n_psi != info.n_psi:
        raise ModelError(
            f"{where}: its samples were made by {info.name!r} ({info.fingerprint[:12]}), got a model with fingerprint "
            f"{found.fingerprint[:12] or 'unknown'}; give the model that made them, from {Path(info.path) if info.path else 'where it is'}"
        )
    return found


def _electrons(frames: Frames, n_electrons: float | None) -> np.ndarray:
    """Number of electrons of every temperature, ``(n_groups,)``."""
    if n_electrons is not None:
        return np.full(len(frames.temperatures_K), float(n_electrons))
    result = []
    for index, temperature in enumerate(frames.temperatures_K):
        rows = frames.group == index
        check_constant(float(temperature), frames.n_atoms[rows], frames.n_electrons[rows], known=True)
        result.append(float(frames.n_electrons[rows][0]))
    return np.array(result)


def _electronic(frames: Frames, temperatures_K: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures of the electrons, and the group of frames that belongs to each."""
    if temperatures_K is None:
        return frames.temperatures_K, np.arange(len(frames.temperatures_K))
    if len(frames.temperatures_K) > 1:
        listed = ", ".join(f"{t:g}" for t in frames.temperatures_K)
        raise ValueError(
            f"electronic_temperatures_K needs frames of one ensemble, got {listed} K; choose with temperatures_K"
        )
    values = np.asarray(temperatures_K, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"electronic_temperatures_K={temperatures_K} given, expected a list of positive temperatures")
    return values, np.zeros(len(values), dtype=int)


def _transforms(
    frames: Frames, readout: Readout, transform: FrameTransform | None, align: str, electrons: np.ndarray
) -> tuple[np.ndarray, list[FrameTransform]]:
    """Energies after the transforms, and the transform of each group of frames."""
    energies, n_groups = readout.grid.energies, len(electrons)
    if align == "average":
        assert transform is not None
        return energies, [transform] * n_groups
    # All groups share one axis; anchored at a typical Fermi level, it loses least at its ends.
    psi = np.stack([history.mean() for history in frames.histories()])
    levels = thermo.fermi_level(energies, readout.dos(psi), electrons)
    relative = relative_energies(energies, float(np.mean(levels)))
    return relative, [FermiAlignment(energies, relative, float(n), transform) for n in electrons]
