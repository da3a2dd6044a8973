"""What to beware of in a result, one sentence for each thing, however many temperatures it concerns.

>>> listed([300.0, 600.0]), listed(np.arange(100.0, 2200.0, 100.0))
('300, 600 K', '100 to 2100 K (21 temperatures)')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from .burn_in import drifting
from .consistency import biases, pressures_GPa
from .inputs import Inputs


def listed(temperatures_K: Sequence[float] | np.ndarray) -> str:
    """Temperatures in a message, of many the ends."""
    if len(temperatures_K) > 6:
        return f"{min(temperatures_K):g} to {max(temperatures_K):g} K ({len(temperatures_K)} temperatures)"
    return ", ".join(f"{t:g}" for t in temperatures_K) + " K"


def notes_of_inputs(inputs: Inputs) -> list[str]:
    """What the frames are not: complete, unbiased, of one pressure, equilibrated."""
    frames, notes = inputs.frames, []
    reasons: dict[str, int] = {}
    for trace in frames.traces:
        for reason, count in trace.skipped.items():
            reasons[reason] = reasons.get(reason, 0) + count
    if reasons:
        listed_reasons = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        notes.append(f"{sum(reasons.values())} frames gave no sample: {listed_reasons}")
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
    if inputs.cuts is None:
        drifts = drifting(frames, inputs.readout, inputs.n_electrons)
        if drifts:
            notes.append(
                f"{listed(drifts)}: the beginning drifts; leave it out with burn_in (--burn-in STEPS, or auto)"
            )
    return notes


def notes_of_results(data: xr.Dataset) -> list[str]:
    """What errors there are not, or not for sure."""
    notes = []
    if str(data.attrs["model_error"]).startswith("NaN"):
        notes.append("model errors are " + str(data.attrs["model_error"]))
    n, n_eff, ess = (data[name].values for name in ("n_samples", "n_effective", "effective_sample_size"))
    few = np.isfinite(n_eff) & (data["sampling_reliable"].values == 0)
    stuck = few & np.isinf(data["n_missing"].values)
    flat = np.isfinite(n_eff) & ~few & np.isnan(data["heat_capacity_sampling_err"].values)
    missing = [_two_digits(x) if np.isfinite(x) else 0 for x in data["n_missing"].values]
    lower = "sampling errors are lower bounds, {0} frames are about {1} independent ones; "
    for which, text, columns in (
        (ess < 0.5 * n, "weights differ so much that {0} frames count as {1}", [_span(n), _span(ess, ".1f")]),
        (np.isnan(n_eff), "no sampling error, {0} frames are too few or too correlated to give one", [_span(n)]),
        (few & ~stuck, lower + "about {2} more are needed", [_span(n), _span(n_eff, ".0f"), _span(np.array(missing))]),
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


def _span(values: np.ndarray, form: str = "g") -> Callable[[np.ndarray], str]:
    """Text of the values of some temperatures: one number, or the smallest and the largest."""

    def text(which: np.ndarray) -> str:
        ends = [f"{end(values[which]):{form}}" for end in (np.min, np.max)]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)

    return text


def _two_digits(n_missing: float) -> int:
    """Rounded up."""
    size = 10 ** max(int(np.log10(max(n_missing, 1.0))) - 1, 0)
    return int(np.ceil(n_missing / size)) * size
