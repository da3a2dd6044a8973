"""C_el(T) of the alloy by several models: denoised and raw, plain and reweighted, and what the smearing of the targets does to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import expit

import petdos_md as pm
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.constants import BOLTZMANN_EV as KB
from petdos_md.base.errors import PetdosError
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.rounding import with_errors
from petdos_md.physics.dft import dos_target
from petdos_md.results.normalization import in_units
from petdos_md.validation.references import read_structures

DATA = Path(__file__).resolve().parents[1] / "training" / "data" / "hea-pbesol.xyz.xz"
COLORS = ("#0b5394", "#c1440e", "#3a7d2c", "0.4")


@dataclass(frozen=True)
class Curve:
    """C_el of one model at the temperatures of the ladder, k_B per atom.

    :param denoised: of averages of denoised frames, as in the article, with its two errors
    :param raw: of averages of the frames as they are
    :param reweighted: the same of the frames of all temperatures by MBAR, with its error
    :param notes: of the analysis, what to beware of
    """

    temperatures: np.ndarray
    n_frames: np.ndarray
    denoised: np.ndarray
    model_error: np.ndarray
    sampling_error: np.ndarray
    raw: np.ndarray
    reweighted: np.ndarray
    reweighted_error: np.ndarray
    notes: list[str]

    def rows(self) -> list[tuple[float, ...]]:
        """All numbers, by temperature."""
        return list(zip(*(column for name, column in vars(self).items() if name != "notes"), strict=True))


def compare(
    traces: dict[str, Path], models: dict[str, pm.DOSModel], folder: Path, burn_in: int, n_structures: int | None = None
) -> None:
    """Print tables; write ``heat-capacity.csv`` and ``alloy.png``.

    :param n_structures: of the data for the curves of DFT, the first ones; default: all
    """
    curves = {label: curve(trace, models[label], burn_in) for label, trace in traces.items()}
    names = "temperature (K),frames,denoised,model error,sampling error,raw,reweighted,sampling error of MBAR"
    lines = [f"model,{names}"]
    for label, found in curves.items():
        print(f"\n{label}: C_el (k_B per atom)")
        print("    T  frames  denoised ± model ± sampling     raw  reweighted ± sampling")
        for t, n, *c in found.rows():
            raw = "?" if np.isnan(c[3]) else f"{c[3]:.4f}"
            print(f"{t:5.0f}  {n:6.0f}  {with_errors(c[:3]):>27}  {raw:>6}  {with_errors(c[4:]):>21}")
            lines.append(",".join([label, f"{t:g}", f"{n:.0f}", *(f"{x:.6f}" for x in c)]))
        print("\n".join(f"note: {note}" for note in found.notes))
    print(
        "\nraw: of the frames as they are; reweighted: the same of the frames of all temperatures, by MBAR (10.1063/1.2978177); ?: not known"
    )
    (folder / "heat-capacity.csv").write_text("\n".join(lines) + "\n")
    draw(curves, folder / "alloy.png", n_structures)


def curve(trace: Path, model: pm.DOSModel, burn_in: int) -> Curve:
    """Analyze a trace in the three ways."""
    denoised = in_units(pm.analyze(trace, model, denoise=True, burn_in=burn_in), "kB")
    raw = in_units(pm.analyze(trace, model, burn_in=burn_in), "kB")
    temperatures = denoised["temperature"].values
    again, its_error = reweighted(trace, temperatures, model, burn_in)
    found = (denoised[f"heat_capacity{ending}"].values for ending in ("", "_model_std", "_sampling_err"))
    notes = [str(note) for note in np.atleast_1d(denoised.attrs.get("notes", []))]
    return Curve(
        temperatures, denoised["n_samples"].values, *found, raw["heat_capacity"].values, again, its_error, notes
    )


def draw(curves: dict[str, Curve], file: Path, n_structures: int | None) -> None:
    """C_el with both errors beside DFT of the training data; and what method and smearing change."""
    temperatures = next(iter(curves.values())).temperatures
    smeared, sharp = heat_capacities_of_data(temperatures, n_structures)
    mean_smeared, mean_sharp = smeared.mean(axis=0), sharp.mean(axis=0)
    bias = 100 * (mean_smeared / mean_sharp - 1)
    print("\nbias of the smearing of 0.3 eV, from the eigenvalues of the data:")
    print(", ".join(f"{b:+.1f} % at {t:.0f} K" for t, b in zip(temperatures, bias, strict=True)))
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, (label, found) in enumerate(curves.items()):
        t, c, color = found.temperatures, found.denoised, COLORS[k % len(COLORS)]
        left.fill_between(t, c - found.model_error, c + found.model_error, color=color, alpha=0.15, linewidth=0)
        left.errorbar(
            t, c, found.sampling_error, color=color, marker="osD^"[k % 4], markersize=3, capsize=2, label=label
        )
        right.plot(t, 100 * (found.raw / c - 1), color=color, linestyle="--", label=f"{label}: raw / denoised")
        change = 100 * (found.reweighted / found.raw - 1)
        right.plot(t, change, color=color, linestyle=":", label=f"{label}: reweighted / plain, both raw")
    left.plot(
        temperatures, mean_smeared, color="k", linewidth=1, label=f"DFT of the data, smeared ({len(smeared)} cells)"
    )
    left.plot(temperatures, mean_sharp, color="k", linewidth=1, linestyle="--", label="DFT of the data, not smeared")
    right.plot(temperatures, bias, color="k", label="DFT of the data: smeared / not")
    left.set(xlabel="$T$ (K)", ylabel=r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)")
    right.set(xlabel="$T$ (K)", ylabel="change of $C_\\mathrm{el}$ (%)")
    right.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=7)
        axes.margins(y=0.25)
    figure.savefig(file, dpi=160)
    print(f"\nfigure: {file}")


def reweighted(
    trace: Path, temperatures: np.ndarray, model: pm.DOSModel, burn_in: int
) -> tuple[np.ndarray, np.ndarray]:
    """MBAR's C_el with its error in k_B per atom; NaN, and a line that says why, if the frames do not allow it."""
    try:
        found = reweighted_estimate(trace, temperatures, model, burn_in=burn_in, pressure_GPa=0.0)
    except PetdosError as error:
        print(f"not reweighted: {error}")
        return np.full(len(temperatures), np.nan), np.full(len(temperatures), np.nan)
    scale = KB * found["n_atoms"].values
    return found["heat_capacity"].values / scale, found["heat_capacity_sampling_err"].values / scale


def heat_capacities_of_data(temperatures: np.ndarray, n_structures: int | None) -> tuple[np.ndarray, np.ndarray]:
    """With the smearing of the targets and without: ``(n_structures, n_temperatures)`` k_B per atom."""
    structures = [
        a
        for a in read_structures(DATA, index=f":{n_structures or ''}")
        if a.info["tag"].startswith("hea-fcc-") and "compressed" not in a.info["tag"]
    ]
    grid, smeared, sharp = EnergyGrid(-5.0, 0.05, 561), [], []
    for atoms in structures:
        levels, weights, n = (
            np.asarray(atoms.info["eigenvalues"]),
            np.asarray(atoms.info["kweights"]),
            float(atoms.info["n_electrons"]),
        )
        dos = dos_target(levels, weights, grid)
        known = np.isfinite(dos)
        c = pm.thermo.heat_capacity(grid.energies[known], dos[known], n, temperatures)
        smeared.append(np.asarray(c) / KB / len(atoms))
        sharp.append([heat_capacity_of_levels(levels, weights, n, t) / KB / len(atoms) for t in temperatures])
    return np.array(smeared), np.array(sharp)


def heat_capacity_of_levels(levels: np.ndarray, weights: np.ndarray, n_electrons: float, temperature_K: float) -> float:
    """(K_2 - K_1^2 / K_0) / T of discrete levels, eV/K."""
    kt = KB * temperature_K
    mu = brentq(
        lambda m: float((weights[:, None] * expit((m - levels) / kt)).sum()) - n_electrons,
        levels.min() - 1,
        levels.max(),
    )
    x = levels - mu
    f = expit(-x / kt)
    slope = weights[:, None] * f * (1 - f) / kt
    k0, k1, k2 = (float((slope * x**p).sum()) for p in range(3))
    return (k2 - k1**2 / k0) / temperature_K
