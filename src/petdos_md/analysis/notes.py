"""What to beware of in a result, one sentence for each thing, however many temperatures it concerns.

>>> listed([300.0, 600.0]), listed(np.arange(100.0, 2200.0, 100.0))
('300, 600 K', '100 to 2100 K (21 temperatures)')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from ..base.constants import BOLTZMANN_EV
from ..base.rounding import counted
from ..physics.thermo import GAP_THRESHOLD
from .burn_in import drifting
from .consistency import biases, hot_electrons, pressures_GPa, runaways_K
from .frames import Frames
from .inputs import Inputs
from .ramps import is_ramp

NEAR_FERMI_EV = 2.0
PSEUDOGAP = 1 / 3
"""A DOS at the Fermi level that is less than this part of its mean within :data:`NEAR_FERMI_EV` may be a gap that is filled by smearing."""
MEMBERS_APART = 0.05
"""Relative difference of C_el of the model and the mean over its members that is worth a note."""
UNTOLD = 1000
"""How many times the frames there are may be said to be missing; more comes of correlations that so few cannot tell from one."""


def listed(temperatures_K: Sequence[float] | np.ndarray) -> str:
    """Temperatures in a message, of many the ends."""
    if len(temperatures_K) > 6:
        return f"{min(temperatures_K):g} to {max(temperatures_K):g} K ({len(temperatures_K)} temperatures)"
    return ", ".join(f"{t:g}" for t in temperatures_K) + " K"


def notes_of_inputs(inputs: Inputs, *, at_other_T_e: bool = True) -> list[str]:
    """What the frames are not: complete, unbiased, of one pressure, equilibrated.

    :param at_other_T_e: results are at temperatures of electrons that may differ from those of the frames
    """
    frames, notes = inputs.frames, []
    reasons: dict[str, int] = {}
    for trace in frames.traces:
        for reason, count in trace.skipped.items():
            reasons[reason] = reasons.get(reason, 0) + count
    if reasons:
        listed_reasons = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        notes.append(f"{counted(sum(reasons.values()), 'frame')} gave no sample: {listed_reasons}")
    notes += _runaway_notes(frames)
    bias, kept = biases(frames), frames.group >= 0
    if bias and np.ptp(frames.weight[kept]) == 0:
        notes.append(
            f"sampled with a bias ({', '.join(bias)}): averages are those of the biased ensemble; give weights"
        )
    pressure, mixed = pressures_GPa(frames), {}
    for index, temperature in enumerate(frames.temperatures_K):
        known = pressure[(frames.group == index) & np.isfinite(pressure)]
        if len(known) and np.ptp(known) > 1e-6:
            mixed[float(temperature)] = known.min(), known.max()
    if mixed:
        low, high = min(p[0] for p in mixed.values()), max(p[1] for p in mixed.values())
        notes.append(
            f"{listed(list(mixed))}: replicas of pressures from {low:g} to {high:g} GPa are averaged together; choose those of one with "
            "replicas=[...] (--replica)"
        )
    hot = hot_electrons(frames)
    if hot and at_other_T_e:
        notes.append(
            f"the atoms moved among electrons at {', '.join(hot)}: what stands here of electrons is at the temperatures of the table; give "
            "electronic_temperatures_K='frames' (--electronic-temperature frames) for theirs"
        )
    changing = [span for span in hot if " to " in span]
    if changing:
        notes.append(
            f"the temperature of the electrons changes along the run, {', '.join(changing)}: frames of all of them are averaged together here; "
            "choose with electronic_range_K=(FROM, TO) (--electronic-range), or follow it with `petdos ramp`"
        )
    if is_ramp(frames.temperature_K[kept], frames.segment[kept]):
        notes.append(
            "the temperature changes along the run: frames of heating and cooling are averaged together here; `petdos ramp` keeps them apart"
        )
    if inputs.cuts is None:
        drifts = drifting(frames, inputs.readout, inputs.n_electrons)
        if drifts:
            notes.append(
                f"{listed(drifts)}: the beginning drifts; leave it out with burn_in (--burn-in STEPS, or auto)"
            )
    return notes


def notes_of_results(data: xr.Dataset) -> list[str]:
    """Gaps that are not empty, and what errors there are not, or not for sure."""
    notes = [*_gap_notes(data), *_member_notes(data)]
    if str(data.attrs["model_error"]).startswith("NaN"):
        notes.append("model errors are " + str(data.attrs["model_error"]))
    n, n_eff, ess = (data[name].values for name in ("n_samples", "n_effective", "effective_sample_size"))
    few = np.isfinite(n_eff) & (data["sampling_reliable"].values == 0)
    stuck = few & np.isinf(data["n_still_needed"].values)
    flat = np.isfinite(n_eff) & ~few & np.isnan(data["heat_capacity_sampling_err"].values)
    missing = np.array([_two_digits(x) if np.isfinite(x) else 0 for x in data["n_still_needed"].values])
    far = few & ~stuck & (missing > UNTOLD * n)
    lower = "sampling errors are lower bounds, {0} frames are about {1} independent ones; "
    for which, text, columns in (
        (ess < 0.5 * n, "weights differ so much that {0} frames count as {1}", [_span(n), _span(ess, ".1f")]),
        (np.isnan(n_eff), "no sampling error, {0} too few or too correlated to give one", [_frames_are(n)]),
        (few & ~stuck & ~far, lower + "about {2} more are needed", [_span(n), _span(n_eff, ".0f"), _span(missing)]),
        (far, lower + "many more are needed, how many cannot be told yet", [_span(n), _span(n_eff, ".0f")]),
        (
            stuck,
            lower + "replicas disagree, so that more of them are needed rather than more frames",
            [_span(n), _span(n_eff, ".0f")],
        ),
        (flat, "no sampling error of the heat capacity, which vanishes in a gap without states", []),
    ):
        if which.any():
            temperatures = data["temperature"].values[which]
            notes.append(f"{listed(temperatures)}: " + text.format(*(column(which) for column in columns)))
    return notes


def note_of_denoising(data: xr.Dataset, plain_heat_capacity: np.ndarray) -> list[str]:
    """How far denoising moves the heat capacity of what has no gap, where there is nothing to remove.

    :param plain_heat_capacity: ``(n,)`` of the average DOS without denoising, eV/K
    """
    metal = (data["gap"].values == 0) & (_share_at_fermi_level(data) >= PSEUDOGAP)
    if not metal.any():
        return []
    change = 100 * (data["heat_capacity"].values / plain_heat_capacity - 1)
    return [
        f"{listed(data['temperature'].values[metal])}: denoising is made for gaps; here it only changes C_el, by "
        f"{_span(change, '+.1f')(metal)} %: prefer the plain average"
    ]


def _runaway_notes(frames: Frames) -> list[str]:
    found = runaways_K(frames)
    if not found:
        return []
    hottest = max(found, key=lambda temperature: found[temperature])
    steps = {float(trace.attributes.get("timestep_fs") or np.nan) for trace in frames.traces}
    step = f"a time step of {min(steps):g} fs" if len(steps) == 1 and np.isfinite(min(steps)) else "the time step"
    heated = ", or do hot electrons heat the atoms" if hot_electrons(frames) else ""
    return [
        f"{listed(list(found))}: the simulation ran away from its ensemble: kinetic temperature {found[hottest]:.3g} K where the ensemble has "
        f"{hottest:g} K; is {step} too long{heated}? What stands here is not of that ensemble, and its frames are none to train on"
    ]


def _gap_notes(data: xr.Dataset) -> list[str]:
    gap, share = data["gap"].values, _share_at_fermi_level(data)
    filled = (gap == 0) & (share < PSEUDOGAP)
    notes = []
    for which, text, column in (
        (
            gap > 0,
            f"a gap of {{0}} eV (DOS below {GAP_THRESHOLD:g} states/eV/atom); the states in it are smearing of the training data and "
            "ripples of the model, so that C_el is an upper bound, and carriers that are counted in it mean nothing",
            _span(gap, ".2f"),
        ),
        (
            filled,
            f"the DOS at the Fermi level is {{0}} % of its mean within {NEAR_FERMI_EV:g} eV: a gap narrower than the smearing of the "
            "training data looks like this, too, and C_el is an upper bound then",
            _span(100 * share, ".0f"),
        ),
    ):
        if which.any():
            notes.append(f"{listed(data['temperature'].values[which])}: " + text.format(column(which)))
    return notes


def _share_at_fermi_level(data: xr.Dataset) -> np.ndarray:
    """The DOS at the Fermi level by its mean around it, ``(n,)``."""
    level = data["fermi_level"].values if data.attrs["energy_reference"] == "raw" else np.zeros(len(data["gap"]))
    near = [
        float(dos[np.abs(data["energy"].values - zero) < NEAR_FERMI_EV].mean())
        for dos, zero in zip(data["dos"].values, level, strict=True)
    ]
    return data["dos_at_fermi_level"].values / np.array(near)


def _member_notes(data: xr.Dataset) -> list[str]:
    if "heat_capacity_member_mean" not in data:
        return []
    unit = data["n_atoms"].values * BOLTZMANN_EV
    value, mean, error, spread = (
        data[f"heat_capacity{ending}"].values / unit for ending in ("", "_member_mean", "_sampling_err", "_model_std")
    )
    change = mean / np.where(value > 0, value, np.nan) - 1
    apart = (np.abs(change) > MEMBERS_APART) & (np.abs(mean - value) > np.nan_to_num(error))
    # A share of what is zero within its error says nothing.
    known = value > spread
    notes = []
    for which, off in (
        (apart & known, "{0} % off the value of the model itself"),
        (apart & ~known, "{1} k_B per atom where that of the model itself is {2}"),
    ):
        if which.any():
            numbers = _span(100 * change, "+.0f")(which), _span(mean, ".2g")(which), _span(value, ".2g")(which)
            notes.append(
                f"{listed(data['temperature'].values[which])}: the mean of C_el over members is {off.format(*numbers)}: the members differ "
                "by too much for C_el to be known, whatever its error says"
            )
    return notes


def _span(values: np.ndarray, form: str = "g") -> Callable[[np.ndarray], str]:
    """Text of the values of some temperatures: one number, or the smallest and the largest."""

    def text(which: np.ndarray) -> str:
        ends = [f"{end(values[which]):{form}}" for end in (np.min, np.max)]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)

    return text


def _frames_are(n: np.ndarray) -> Callable[[np.ndarray], str]:
    return lambda which: "1 frame is" if (n[which] == 1).all() else f"{_span(n)(which)} frames are"


def _two_digits(n_still_needed: float) -> int:
    """Rounded up."""
    size = 10 ** max(int(np.log10(max(n_still_needed, 1.0))) - 1, 0)
    return int(np.ceil(n_still_needed / size)) * size
