"""From traces to results: the thermal-average DOS and what follows from it, each with a model and a sampling error.

>>> result = analyze("run.zarr", reference="fermi")                            # doctest: +SKIP
>>> result["heat_capacity"].sel(temperature=300)                               # doctest: +SKIP
>>> result["dos"], result["dos_model_std"], result["dos_sampling_err"]         # doctest: +SKIP

Definitions. Averages over frames are taken first, of the DOS of the model and of each member of its ensemble; each member's
quantities follow from that member's average (paper, Figs. 6 and 7, DOI 10.1039/D5DD00557D).

- *Value*: of the model's own DOS, which is the mean of its members. A new ensemble of the same model (``petdos calibrate``) leaves every
  value as it is. The article gives the mean over members instead, ``heat_capacity_member_mean`` here. The two differ to second order
  in the deviations of the members; where they differ much, a note says so, and neither is known well.
- ``_model_std``: standard deviation over members (``n - 1``) around their own mean. Of the DOS relative to the Fermi level: over
  members that are each at their own Fermi level.
- ``_sampling_err``: standard error of the finite, correlated series of frames (:mod:`petdos_md.analysis.statistics`), to first order
  in the fluctuation of the DOS. The two errors have different causes and cures and are never added up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import numpy as np
import xarray as xr

from ..models.readout import Readout
from ..physics import thermo
from ..physics.denoise import Denoise
from ..physics.quantities import LINEAR, EnsembleValues, derive, derive_members, kernels
from ..traces.trace import HasModelInfo
from .dataset import Estimates, add_carriers, add_notes, build_dataset
from .fermi_reference import AlignedSpectra, FermiAxis
from .group_averages import FermiAlignment, FrameByFrameAverages, GroupAverages, LinearAverages, relative_energies
from .inputs import Conditions, Inputs, TraceLike, fermi_network, read_inputs
from .notes import note_of_denoising
from .options import AnalysisKeywords, AnalysisOptions, FrameSelection, split_keywords
from .transforms import FrameTransform

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from ..physics.networks import Network


def analyze(
    traces: TraceLike | Sequence[TraceLike],
    model: HasModelInfo | Readout | str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    **keywords: Unpack[AnalysisKeywords],
) -> xr.Dataset:
    """Thermal averages per ensemble temperature.

    :param traces: a :class:`~petdos_md.traces.trace.Trace`, the path of one, or several of one model
    :param model: a DOSModel, its Readout, or where it lies; by default the model that the trace names
    :param progress: called with the work done and the total
    :param keywords: which frames count, ``temperatures_K, burn_in, replicas, weights, steps, electronic_range_K``, as in
        :class:`~petdos_md.analysis.options.FrameSelection`; what becomes of them, ``reference, align, error_method, n_electrons,
        electronic_temperatures_K, transform, denoise, members, keep_members, carriers``, as in
        :class:`~petdos_md.analysis.options.AnalysisOptions`
    :returns: dimensions ``temperature`` (K), ``energy`` (eV), ``member``; every variable names its unit in
        ``attrs["units"]``; energies and capacities are per structure (of ``n_atoms``); ``attrs["notes"]``, if there, says what
        to beware of
    :raises TypeError: for an unknown keyword
    :raises NoSamplesError: if there are no samples, or none are left
    :raises TraceError: if traces do not belong together, or lack a temperature or replica
    :raises SettingError: for a choice that does not exist or contradicts another, a frame without a weight in the table, or if
        all weights of a temperature are zero
    :raises ModelError: if the model is not there or is not that of the trace
    :raises StructureError: if composition varies within a temperature, the number of electrons is not known, or carriers
        are asked for where a DOS has no gap
    :raises ChemicalPotentialError: if a member cannot hold the electrons on the energy grid
    """
    selection, options = split_keywords("analyze", keywords, FrameSelection, AnalysisOptions)
    inputs = read_inputs(traces, model, selection, options.n_electrons)
    conditions = inputs.conditions(options.electronic_temperatures_K)
    network = fermi_network(options.denoise, model, inputs.frames.model, inputs.readout) if options.denoise else None
    before = _frame_transforms(inputs, options, network)
    with_members = options.members and inputs.readout.n_members > 0
    averages = _averages(inputs, options, before, with_members, progress)

    estimates, whole = _estimates(averages, conditions, options, with_members)
    dataset = build_dataset(inputs, conditions, estimates)
    if whole is not None:
        dataset["dos_members"] = ("temperature", "member", "energy"), whole, dict(dataset["dos"].attrs)
    if options.carriers:
        parts = averages.member_slices() if with_members else iter(())
        own = averages.dos[conditions.group]
        add_carriers(dataset, averages.energies, own, (s[conditions.group] for s in parts), conditions.n_electrons)
    if options.denoise:
        add_notes(dataset, note_of_denoising(dataset, _plain_heat_capacity(inputs, conditions)))
    dataset.attrs |= {
        "align": options.align,
        "error_method": options.error_method,
        **inputs.burn_in(selection),
        "denoise": _denoising(network) if options.denoise else "no",
        "transform": "none" if before[0] is None else getattr(before[0], "__name__", type(before[0]).__name__),
    }
    return dataset


def _plain_heat_capacity(inputs: Inputs, conditions: Conditions) -> np.ndarray:
    """Without denoising, ``(n,)`` eV/K."""
    energies = inputs.readout.grid.energies
    dos = inputs.readout.dos(np.stack([history.mean() for history in inputs.frames.histories()]))[conditions.group]
    return thermo.heat_capacity(energies, dos, conditions.n_electrons, conditions.temperatures_K)


def _frame_transforms(inputs: Inputs, options: AnalysisOptions, network: Network | None) -> list[FrameTransform | None]:
    """What is done to the DOS of single frames of each group, None for nothing."""
    if not options.denoise:
        return [options.transform] * len(inputs.n_electrons)
    energies = inputs.readout.grid.energies
    return [
        Denoise(energies, int(size), float(n), network)
        for size, n in zip(inputs.n_atoms, inputs.n_electrons, strict=True)
    ]


def _averages(
    inputs: Inputs,
    options: AnalysisOptions,
    before: list[FrameTransform | None],
    with_members: bool,
    progress: Callable[[int, int], None] | None,
) -> GroupAverages:
    frames, readout = inputs.frames, inputs.readout
    if before[0] is None and options.align == "average":
        return LinearAverages(frames, readout, progress)
    if options.align == "average":
        energies, transforms = readout.grid.energies, [transform for transform in before if transform is not None]
    else:
        energies, transforms = _alignments(inputs, before)
    return FrameByFrameAverages(frames, readout, transforms, energies, with_members, progress)


def _alignments(inputs: Inputs, before: list[FrameTransform | None]) -> tuple[np.ndarray, list[FrameTransform]]:
    """Energies relative to the Fermi level, and what takes the frames of each group there."""
    energies, electrons = inputs.readout.grid.energies, inputs.n_electrons
    # All groups share one axis; anchored at a typical Fermi level, it loses least at its ends.
    features = np.stack([history.mean() for history in inputs.frames.histories()])
    levels = thermo.fermi_level(energies, inputs.readout.dos(features), electrons)
    relative = relative_energies(energies, float(np.mean(levels)))
    aligned = [FermiAlignment(energies, relative, float(n), t) for n, t in zip(electrons, before, strict=True)]
    return relative, list(aligned)


def _estimates(
    averages: GroupAverages, conditions: Conditions, options: AnalysisOptions, with_members: bool
) -> tuple[Estimates, np.ndarray | None]:
    """Quantities of the averages and their errors; and the average DOS of every member, if it is to be kept."""
    energies, dos, group = averages.energies, averages.dos[conditions.group], conditions.group
    n_electrons, temperatures, sizes = conditions.n_electrons, conditions.temperatures_K, conditions.n_atoms
    central = derive(energies, dos, n_electrons, temperatures, n_atoms=sizes)
    ensemble = None
    if with_members:
        slices = (s[group] for s in averages.member_slices())
        ensemble = derive_members(energies, slices, dos, n_electrons, temperatures, n_atoms=sizes)
    functionals = np.empty((len(temperatures), len(LINEAR), len(energies)))
    for i, temperature in enumerate(temperatures):
        found = kernels(energies, dos[i], float(n_electrons[i]), float(temperature))
        functionals[i] = [found[name] for name in LINEAR]
    axis = None
    if options.reference == "fermi" and options.align == "average":
        levels = [central["fermi_level"], *([] if ensemble is None else ensemble.values["fermi_level"].T)]
        axis = FermiAxis(energies, np.stack(levels))
    spectra = _spectra(averages, conditions, ensemble, axis, options.keep_members and with_members)

    def of_blocks(index: int, blocks: np.ndarray) -> np.ndarray:
        if axis is None:
            return blocks
        k = int(np.flatnonzero(group == index)[0])
        return axis.fluctuation(blocks, dos[k], float(n_electrons[k]), float(central["fermi_level"][k]))

    errors, dos_err = averages.sampling(functionals, group, options.error_method, of_blocks)
    estimates = Estimates(
        energies=energies if axis is None else axis.relative,
        axis_zero=options.reference,
        energy_zero="raw" if options.align == "average" else "fermi",
        alignment=_alignment(options, ensemble is not None),
        dos=spectra.dos,
        dos_std=spectra.dos_std,
        dos_sampling_err=dos_err[group],
        central=central,
        ensemble=ensemble,
        errors=errors,
    )
    return estimates, spectra.members


def _spectra(
    averages: GroupAverages, conditions: Conditions, ensemble: EnsembleValues | None, axis: FermiAxis | None, keep: bool
) -> AlignedSpectra:
    """Average DOS with its spread, on the axis of the averages or relative to Fermi levels."""
    group, dos = conditions.group, averages.dos[conditions.group]
    slices = (s[group] for s in averages.member_slices()) if ensemble is not None else iter(())
    if axis is None:
        std = np.full_like(dos, np.nan) if ensemble is None else ensemble.dos_std
        return AlignedSpectra(dos, std, np.concatenate(list(slices), axis=1) if keep else None)
    aligned = axis.align(dos, thermo.fermi_level(averages.energies, dos, conditions.n_electrons))
    if ensemble is None:
        return AlignedSpectra(aligned, np.full_like(aligned, np.nan), None)
    return replace(axis.align_members(slices, ensemble.values["fermi_level"], keep), dos=aligned)


def _alignment(options: AnalysisOptions, members: bool) -> str:
    if options.reference == "raw":
        return "none: the model's own energies"
    if options.align == "frames":
        return "every frame and member at its own Fermi level, then averaged"
    return f"the average{' and that of each member' if members else ''} at its own Fermi level"


def _denoising(network: Network | None) -> str:
    return f"Eqs. 11-16, Fermi level from {network.source if network else 'the integral of the raw DOS'}"
