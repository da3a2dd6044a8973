"""From traces to results: the thermal-average DOS and what follows from it, each with a model and a sampling error.

>>> result = analyze("run.zarr", reference="fermi")                            # doctest: +SKIP
>>> result["heat_capacity"].sel(temperature=300)                               # doctest: +SKIP
>>> result["dos"], result["dos_model_std"], result["dos_sampling_err"]         # doctest: +SKIP

Definitions. Averages over frames are taken first, of the DOS of the model and of each member of its ensemble; each member's
quantities follow from that member's average (paper, Figs. 6 and 7, DOI 10.1039/D5DD00557D).

- *Value*: the mean over members, as in the paper; without an ensemble, the value of the mean DOS. For the DOS itself the
  two are one. ``heat_capacity_mean_dos`` is the heat capacity of the mean DOS.
- ``_model_std``: standard deviation over members (``n - 1``).
- ``_sampling_err``: standard error of the finite, correlated series of frames (:mod:`petdos_md.analysis.statistics`), to first order
  in the fluctuation of the DOS. The two errors have different causes and cures and are never added up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ..base.errors import SettingError
from ..models.readout import Readout
from ..physics import thermo
from ..physics.denoise import Denoise
from ..physics.networks import Network
from ..physics.quantities import LINEAR, derive, derive_members, kernels
from ..traces.trace import HasModelInfo
from .dataset import add_carriers, build_dataset, relative_to_fermi
from .frames import Frames
from .group_averages import FermiAlignment, FrameByFrameAverages, GroupAverages, LinearAverages, relative_energies
from .inputs import TraceLike, electronic_temperatures, electrons_per_group, fermi_network, find_readout, open_traces
from .statistics import METHODS
from .transforms import FrameTransform
from .weights import FrameWeights


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
    denoise: bool | str | Path | Network = False,
    weights: FrameWeights | str | os.PathLike[str] | None = None,
    members: bool = True,
    keep_members: bool = False,
    carriers: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Thermal averages per ensemble temperature.

    :param traces: a :class:`~petdos_md.traces.trace.Trace`, the path of one, or several of one model
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
        :class:`~petdos_md.analysis.transforms.FrameTransform`), on the same energies
    :param denoise: whether to denoise every frame and member before averaging (Eqs. 11-16, :mod:`petdos_md.physics.denoise`); the Fermi
        level of each comes from the network beside the model if there is one, else from the integral of the raw DOS.
        ``network`` and ``integration`` insist on one of them; a :class:`~petdos_md.physics.networks.Network` or its file is used as given.
        ``attrs["denoise"]`` tells what was done
    :param weights: statistical weights in place of those of the samples: a :class:`~petdos_md.analysis.weights.FrameWeights` or its file
    :param members: whether to evaluate the ensemble; otherwise all model errors are NaN
    :param keep_members: store the average DOS of every member as ``dos_members``
    :param carriers: count electrons and holes (:func:`petdos_md.physics.carriers.carriers`); every average DOS must have a gap
    :param progress: called with the work done and the total
    :returns: dimensions ``temperature`` (K), ``energy`` (eV), ``member``; every variable names its unit in
        ``attrs["units"]``; energies and capacities are per structure (of ``n_atoms``); ``attrs["notes"]``, if there, says what
        to beware of
    :raises NoSamplesError: if there are no samples, or none are left
    :raises TraceError: if traces do not belong together, or lack a temperature or replica
    :raises SettingError: for a choice that does not exist or contradicts another, a frame without a weight in the table, or if
        all weights of a temperature are zero
    :raises ModelError: if the model is not there or is not that of the trace
    :raises StructureError: if composition varies within a temperature, the number of electrons is not known, or carriers
        are asked for where a DOS has no gap
    :raises ChemicalPotentialError: if a member cannot hold the electrons on the energy grid
    """
    _check_choices(reference, align, error_method, n_electrons)
    if denoise and transform is not None:
        raise SettingError(
            "denoise and transform are both given, expected one; a transform may call petdos_md.physics.denoise.Denoise"
        )
    if isinstance(weights, str | os.PathLike):
        weights = FrameWeights.read(weights)
    frames = Frames(open_traces(traces), temperatures_K, burn_in, replicas, weights)
    readout = find_readout(model, frames.model, str(frames.traces[0].path))
    electrons = electrons_per_group(frames, n_electrons)
    temperatures, which = electronic_temperatures(frames, electronic_temperatures_K)
    network = fermi_network(denoise, model, frames.model, readout) if denoise else None
    before: list[FrameTransform | None] = [transform] * len(electrons)
    sizes = np.array([int(frames.n_atoms[frames.group == index][0]) for index in range(len(electrons))])
    if denoise:
        before = [
            Denoise(readout.grid.energies, int(size), float(n), network)
            for size, n in zip(sizes, electrons, strict=True)
        ]
    with_members = members and readout.n_members > 0

    averages: GroupAverages
    if before[0] is None and align == "average":
        averages = LinearAverages(frames, readout, progress)
    else:
        energies, transforms = _transforms(frames, readout, before, align, electrons)
        averages = FrameByFrameAverages(frames, readout, transforms, energies, with_members, progress)

    energies, dos, n_el = averages.energies, averages.dos[which], electrons[which]
    central = derive(energies, dos, n_el, temperatures, n_atoms=sizes[which])
    ensemble = None
    if with_members:
        slices = (s[which] for s in averages.member_slices())
        ensemble = derive_members(energies, slices, dos, n_el, temperatures, n_atoms=sizes[which])
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
    if carriers:
        parts = averages.member_slices() if with_members else iter([averages.dos[:, None]])
        add_carriers(dataset, energies, (s[which] for s in parts), n_el)
    dataset.attrs |= {
        "align": align,
        "error_method": error_method,
        "burn_in": int(burn_in),
        "denoise": _denoising(network) if denoise else "no",
        "transform": "none" if before[0] is None else getattr(before[0], "__name__", type(before[0]).__name__),
    }
    return relative_to_fermi(dataset) if reference == "fermi" and align == "average" else dataset


def _check_choices(reference: str, align: str, error_method: str, n_electrons: float | None) -> None:
    for name, value, known in (
        ("reference", reference, ("raw", "fermi")),
        ("align", align, ("average", "frames")),
        ("error_method", error_method, METHODS),
    ):
        if value not in known:
            raise SettingError(f"{name}={value!r} given, expected one of {', '.join(known)}")
    if align == "frames" and reference != "fermi":
        raise SettingError(
            "align='frames' puts the energy zero at the Fermi level of each frame; give reference='fermi' with it"
        )
    if n_electrons is not None and not 0 < n_electrons < np.inf:
        raise SettingError(f"n_electrons={n_electrons} given, expected a positive number, that of the whole structure")


def _denoising(network: Network | None) -> str:
    return f"Eqs. 11-16, Fermi level from {network.source if network else 'the integral of the raw DOS'}"


def _transforms(
    frames: Frames, readout: Readout, before: list[FrameTransform | None], align: str, electrons: np.ndarray
) -> tuple[np.ndarray, list[FrameTransform]]:
    """Energies after the transforms, and the transform of each group of frames."""
    energies = readout.grid.energies
    if align == "average":
        return energies, [transform for transform in before if transform is not None]
    # All groups share one axis; anchored at a typical Fermi level, it loses least at its ends.
    features = np.stack([history.mean() for history in frames.histories()])
    levels = thermo.fermi_level(energies, readout.dos(features), electrons)
    relative = relative_energies(energies, float(np.mean(levels)))
    aligned = [FermiAlignment(energies, relative, float(n), t) for n, t in zip(electrons, before, strict=True)]
    return relative, list(aligned)
