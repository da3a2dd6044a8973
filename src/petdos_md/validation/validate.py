"""How good a DOS model is, and whether its model errors are right: against reference structures, per subset.

>>> result = validate_model(model, read_references("test.xyz.xz", model))     # doctest: +SKIP
>>> print(format_validation(result))                                          # doctest: +SKIP

- DOS: error after the best rigid shift (Eqs. 8 and 9 of the PET-MAD-DOS article, DOI 10.1039/D5DD00557D);
- symmetry: scatter over 38 rotations (Eq. 10), PET being invariant only by training;
- calibration: z = (reference - mean of the members) / their standard deviation, in every channel and for what is integrated from
  the DOS: the number of states N(E) below the Fermi level, E_F, mu and C_el. Members are taken through each derivation as a
  whole. If the spread of the members is the error, z has a root mean square (``z_spread``) of 1, and 68.3 and 95.4 % of the
  references lie within one and two standard deviations. Levels are compared after the best shift, the zero having no meaning.
- distance from the training set: extrapolation grades (:mod:`petdos_md.models.rigidity`), if the file of the model knows that set.
  What a data set says of a model holds for structures that are as far from the training set as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.constants import BOLTZMANN_EV
from ..base.errors import ChemicalPotentialError, SettingError
from ..base.rounding import two_digits
from ..models.model import DOSModel
from ..models.rigidity import FAR_OUTSIDE
from ..physics import thermo
from .metrics import Z_WANTED, align, chance_interval, rotated, rotations, shifted_target, symmetry_error, z_scores
from .references import Reference
from .residuals import MAX_SHIFT

TEMPERATURES_K = (300.0, 1000.0, 3000.0)
"""Temperatures of mu and C_el."""


@dataclass(frozen=True)
class Comparison:
    """One structure. Levels are on the axis of the model, extensive numbers per atom.

    :param error: Eq. 8, eV^-0.5 electrons^-1 state
    :param symmetry: Eq. 10, same unit; NaN if it was not asked for
    :param shift_eV: by which the model's axis lies higher than that of the reference
    :param extrapolation_grade: without unit; NaN if the model does not know its training set
    :param dos, target: ``(n_channels,)`` states/eV, the latter moved onto the axis of the model
    :param z: ``(n_channels,)`` z-scores of the channels, NaN where the target is undefined or there is no ensemble
    :param integrals: name -> (reference, mean of members or prediction, their standard deviation or NaN); all NaN where the prediction, or a
        member, does not hold the electrons
    """

    subset: str
    n_atoms: int
    n_electrons: float
    error: float
    symmetry: float
    shift_eV: float
    extrapolation_grade: float
    fermi_level: float
    dos: np.ndarray = field(repr=False)
    target: np.ndarray = field(repr=False)
    z: np.ndarray = field(repr=False)
    integrals: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Validation:
    """All structures of a data set.

    :param units: of the integrals
    """

    model: str
    fingerprint: str
    n_members: int
    energies: np.ndarray = field(repr=False)
    comparisons: list[Comparison] = field(repr=False)
    units: dict[str, str]

    def comparisons_of(self, subset: str | None) -> list[Comparison]:
        """Comparisons of a subset, all if None."""
        return [c for c in self.comparisons if subset is None or c.subset == subset]

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets, sorted."""
        return sorted({c.subset for c in self.comparisons})

    @property
    def n_without_levels(self) -> int:
        """Structures whose electrons the prediction, or a member, does not hold: they count in no integral."""
        return sum(bool(np.isnan(c.fermi_level)) for c in self.comparisons)

    @property
    def is_graded(self) -> bool:
        """Whether there are extrapolation grades."""
        return all(np.isfinite(c.extrapolation_grade) for c in self.comparisons)

    def channel_spread(self, subset: str | None = None, fewest: float = 0.5) -> np.ndarray:
        """Root mean square z-score of each channel, ``(n_channels,)``.

        NaN where fewer than the fraction ``fewest`` of the structures define the target.
        """
        return self._channels(subset, fewest)[0]

    def _channels(self, subset: str | None, fewest: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Root mean square z-score of each channel, and how many structures define it."""
        z = np.array([c.z for c in self.comparisons_of(subset)])
        count = np.isfinite(z).sum(axis=0)
        total = np.where(np.isfinite(z), z, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt((total**2).sum(axis=0) / count)
        return np.where((count > 0) & (count >= fewest * len(z)), spread, np.nan), count

    def integral(self, name: str, subset: str | None = None) -> dict[str, float]:
        """Errors of an integral and how well the members predict them.

        :returns: of the structures where it is known, ``mae``, ``rmse``, ``bias`` (in its unit), ``mean`` of the reference, ``std`` (root mean square of the members'
            standard deviation), ``z_spread``, ``z_mean``, ``within_1``, ``within_2`` (fractions)
        """
        rows = np.array([c.integrals[name] for c in self.comparisons_of(subset)])
        rows = rows[np.isfinite(rows[:, 1])] if np.isfinite(rows[:, 1]).any() else np.full((1, 3), np.nan)
        error = rows[:, 1] - rows[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            z = error / rows[:, 2]
        known = np.isfinite(z)

        def of_z(function: Callable[[np.ndarray], Any]) -> float:
            return float(function(z[known])) if known.any() else float("nan")

        return {
            "mean": float(rows[:, 0].mean()),
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            "bias": float(error.mean()),
            "std": float(np.sqrt((rows[:, 2] ** 2).mean())),
            "z_spread": of_z(lambda z: np.sqrt((z**2).mean())),
            "z_mean": of_z(np.mean),
            "within_1": of_z(lambda z: (np.abs(z) <= 1).mean()),
            "within_2": of_z(lambda z: (np.abs(z) <= 2).mean()),
        }

    def summary(self, subset: str | None = None) -> dict[str, Any]:
        """Numbers for one subset (all structures if None), ready for JSON but for NaN."""
        found = self.comparisons_of(subset)
        errors = np.array([c.error for c in found])
        symmetry = np.array([c.symmetry for c in found])
        shifts = np.array([c.shift_eV for c in found])
        grades = np.array([c.extrapolation_grade for c in found])
        return {
            "structures": len(found),
            "dos_rmse": float(np.sqrt((errors**2).mean())),
            "dos_median": float(np.median(errors)),
            "dos_worst": float(errors.max()),
            "symmetry_error": float(np.sqrt((symmetry**2).mean())),
            "shift_mean_eV": float(shifts.mean()),
            "shift_std_eV": float(shifts.std()),
            "extrapolation_grade_median": float(np.median(grades)),
            "extrapolation_grade_max": float(grades.max()),
            "n_far_outside": int((grades > FAR_OUTSIDE).sum()) if self.is_graded else None,
            **self._channel_summary(subset),
            "integrals": {name: self.integral(name, subset) for name in self.units},
        }

    def _channel_summary(self, subset: str | None) -> dict[str, Any]:
        """Calibration of the channels; NaN without an ensemble."""
        nan = float("nan")
        result: dict[str, Any] = {
            "channel_z_spread": nan,
            "channel_z_spread_5_95": [nan, nan],
            "channel_z_chance_99": [nan, nan],
            "channels_wanted": nan,
            "channels_within_chance": nan,
            "channel_within_1": nan,
            "channel_within_2": nan,
        }
        found = self.comparisons_of(subset)
        spread, count = self._channels(subset)
        known = spread[np.isfinite(spread)]
        if len(known):
            low, high = chance_interval(count[np.isfinite(spread)], self.n_members)
            result |= {
                "channel_z_spread": float(np.median(known)),
                "channel_z_spread_5_95": [float(x) for x in np.percentile(known, [5, 95])],
                "channel_z_chance_99": [float(x) for x in chance_interval(len(found), self.n_members)],
                "channels_wanted": float(((known >= Z_WANTED[0]) & (known <= Z_WANTED[1])).mean()),
                "channels_within_chance": float(((known >= low) & (known <= high)).mean()),
            }
        z = np.concatenate([c.z[np.isfinite(c.z)] for c in found])
        if len(z):
            result["channel_within_1"] = float((np.abs(z) <= 1).mean())
            result["channel_within_2"] = float((np.abs(z) <= 2).mean())
        return result


def validate_model(
    model: DOSModel,
    references: Sequence[Reference],
    *,
    temperatures_K: Sequence[float] = TEMPERATURES_K,
    max_shift: int = MAX_SHIFT,
    symmetry: bool = True,
    progress: Callable[[], None] | None = None,
) -> Validation:
    """Compare a model with references.

    :param temperatures_K: of mu and C_el
    :param max_shift: channels by which a target may be moved onto the axis of the model
    :param symmetry: whether to evaluate 38 rotated copies of each structure
    :param progress: called after each structure
    :raises SettingError: if there are no references, or a temperature is not positive
    :raises ChemicalPotentialError: if a target does not hold its electrons
    """
    if not references:
        raise SettingError("there are no references, expected at least one")
    bad = [t for t in temperatures_K if not 0 < t < np.inf]
    if bad:
        raise SettingError(f"got a temperature of {bad[0]:g} K, expected positive ones for mu and C_el")
    comparisons = []
    for reference in references:
        comparisons.append(compare(model, reference, temperatures_K, max_shift, symmetry))
        if progress is not None:
            progress()
    units = _units(temperatures_K)
    return Validation(model.info.name, model.info.fingerprint, model.n_members, model.grid.energies, comparisons, units)


def compare(
    model: DOSModel,
    reference: Reference,
    temperatures_K: Sequence[float] = TEMPERATURES_K,
    max_shift: int = MAX_SHIFT,
    symmetry: bool = True,
) -> Comparison:
    """Compare a model with one reference, see :func:`validate_model`."""
    grid, atoms, n_electrons = model.grid, reference.atoms, reference.n_electrons
    sample = model.evaluate(atoms)
    dos = model.dos(sample)
    members = model.dos_members(sample) if model.n_members > 1 else dos[None]
    best = align(reference.target, dos, grid.step, max_shift)
    target = shifted_target(reference.target, best.shift)
    scatter = float("nan")
    if symmetry:
        turned = model.evaluate([rotated(atoms, rotation) for rotation in rotations()])
        scatter = symmetry_error(np.stack([model.dos(s) for s in turned]), n_electrons, grid.step)
    offset = (best.refined - best.shift) * grid.step  # what a shift by whole channels leaves
    try:
        integrals = _integrals(grid.energies, target, members, n_electrons, len(atoms), temperatures_K, offset)
    except ChemicalPotentialError:
        _check_target(grid.energies, reference, temperatures_K)
        integrals = dict.fromkeys(_units(temperatures_K), (np.nan, np.nan, np.nan))
    z = z_scores(target, members) if len(members) > 1 else np.full(grid.n, np.nan)
    return Comparison(
        subset=reference.subset,
        n_atoms=len(atoms),
        n_electrons=n_electrons,
        error=float(np.sqrt(best.squared_error) / n_electrons),
        symmetry=scatter,
        shift_eV=best.refined * grid.step,
        extrapolation_grade=model.extrapolation_grade(sample),
        fermi_level=integrals["fermi_level"][1],
        dos=dos,
        target=target,
        z=z,
        integrals=integrals,
    )


def format_validation(result: Validation) -> str:
    """Tables in Markdown: the data set, its subsets, and the calibration of integrals."""
    total = result.summary()
    low, high = Z_WANTED
    lines = [f"{result.model}: {total['structures']} structures, {result.n_members} members", "", *_subset_rows(result)]
    lines += [
        "",
        "Errors of the DOS in eV^-0.5 electrons^-1 state, after the best rigid shift (Eqs. 8-10); z: root mean square of (reference - "
        f"prediction) / model error, 1 if the model error is right, {low:g} to {high:g} wanted.{_grades_in_words(total)}",
        "",
        "| integral | unit | mean | MAE | RMSE | bias | model error | z | within 1 and 2 sigma |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, unit in result.units.items():
        s = total["integrals"][name]
        numbers = " | ".join("-" if np.isnan(s[key]) else f"{s[key]:.4g}" for key in ("mean", "mae", "rmse", "bias"))
        lines.append(
            f"| {name.replace('_', ' ')} | {unit} | {numbers} | {_number(s['std'])} | {_number(s['z_spread'])} | "
            f"{_percent(s['within_1'])}, {_percent(s['within_2'])} |"
        )
    if result.n_without_levels:
        lines += [
            "",
            f"{result.n_without_levels} of {total['structures']} structures are missing from the integrals: the predicted DOS, or that of a member, "
            "does not hold their electrons. A model that is trained holds them: train it further, or check its valence electrons.",
        ]
    (p5, p95), (least, most) = total["channel_z_spread_5_95"], total["channel_z_chance_99"]
    lines += [
        "",
        "| z of the channels | |",
        "|---|---|",
        f"| median | {_number(total['channel_z_spread'])} |",
        f"| 5 to 95 % of the channels | {_number(p5)} to {_number(p95)} |",
        f"| by chance alone, 99 % ({total['structures']} structures, {result.n_members} members) | {_number(least)} to {_number(most)} |",
        f"| channels within {low:g} to {high:g} | {_percent(total['channels_wanted'])} |",
        f"| channels within chance | {_percent(total['channels_within_chance'])} |",
        f"| references within 1 and 2 sigma (68 %, 95 % wanted) | {_percent(total['channel_within_1'])}, {_percent(total['channel_within_2'])} |",
    ]
    return "\n".join(lines) + "\n"


def _subset_rows(result: Validation) -> list[str]:
    """The first table: all structures, then each subset."""
    names = ["subset", "structures", "DOS RMSE", "median", "worst", "symmetry error", "z of channels", "z of N(E_F)"]
    names += ["grade"] * result.is_graded
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for subset in [None, *(result.subsets if len(result.subsets) > 1 else [])]:
        s = result.summary(subset)
        row = ["all" if subset is None else subset, str(s["structures"])]
        row += [f"{s[key]:.4f}" for key in ("dos_rmse", "dos_median", "dos_worst")]
        row += [_number(s["symmetry_error"]), _number(s["channel_z_spread"])]
        row += [_number(s["integrals"]["states_below_fermi"]["z_spread"])]
        row += [two_digits(s["extrapolation_grade_max"])] * result.is_graded
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _grades_in_words(total: dict[str, Any]) -> str:
    if total["n_far_outside"] is None:
        return ""
    return (
        f" Grade: largest extrapolation grade, 1 for the 99th percentile of the training set; {total['n_far_outside']} of "
        f"{total['structures']} structures are far outside that set (grade above {FAR_OUTSIDE:g})."
    )


def _units(temperatures_K: Sequence[float]) -> dict[str, str]:
    """Of the integrals."""
    units = {"states_below_fermi": "1/atom", "fermi_level": "eV"}
    for t in temperatures_K:
        units[f"chemical_potential_{t:g}K"] = "eV"
        units[f"heat_capacity_{t:g}K"] = "k_B/atom"
    return units


def _check_target(energies: np.ndarray, reference: Reference, temperatures_K: Sequence[float]) -> None:
    """ChemicalPotentialError if it is the reference that does not hold the electrons."""
    known = np.isfinite(reference.target)
    try:
        for t in temperatures_K:
            thermo.chemical_potential(energies[known], reference.target[known], reference.n_electrons, t)
    except ChemicalPotentialError as error:
        formula = reference.atoms.get_chemical_formula()
        raise ChemicalPotentialError(
            f"the reference DOS of {formula} ({reference.subset or 'no subset'}): {error}"
        ) from None


def _integrals(
    energies: np.ndarray,
    target: np.ndarray,
    members: np.ndarray,
    n_electrons: float,
    n_atoms: int,
    temperatures_K: Sequence[float],
    offset_eV: float,
) -> dict[str, tuple[float, float, float]]:
    """Name -> (reference, mean over members, standard deviation over members)."""
    defined = np.isfinite(target)
    e, both = energies[defined], np.concatenate([target[None, defined], members[:, defined]])
    # Members and reference end at the same energy, so that what lies above is missing from both.
    levels = thermo.fermi_level(e, both, n_electrons)
    step = (energies[-1] - energies[0]) / (len(energies) - 1)
    counts = np.concatenate(
        [np.zeros((len(both), 1)), np.cumsum((both[:, 1:] + both[:, :-1]) / 2, axis=1) * step], axis=1
    )
    # At the Fermi level of the prediction: there the count of the reference differs from the electrons, as that of members does.
    at = float(levels[1:].mean())
    below = np.array([np.interp(at, e, c) for c in counts])
    below[0] = np.interp(at - offset_eV, e, counts[0])
    found = {"states_below_fermi": below / n_atoms, "fermi_level": levels.copy()}
    for t in temperatures_K:
        mu = thermo.chemical_potential(e, both, n_electrons, t)
        found[f"chemical_potential_{t:g}K"] = mu.copy()
        heat = thermo.heat_capacity(e, both, n_electrons, t, mu=mu)
        found[f"heat_capacity_{t:g}K"] = heat / (BOLTZMANN_EV * n_atoms)
    result = {}
    for name, values in found.items():
        if name.startswith(("fermi", "chemical")):
            values[0] += offset_eV
        several = len(values) > 2
        result[name] = float(values[0]), float(values[1:].mean()), float(values[1:].std(ddof=1)) if several else np.nan
    return result


def _number(x: float) -> str:
    return "-" if np.isnan(x) else f"{x:.4f}" if x < 0.1 else f"{x:.2f}"


def _percent(x: float) -> str:
    return "-" if np.isnan(x) else f"{100 * x:.0f} %"
