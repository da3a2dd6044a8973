"""Results as tables: one row for each temperature or frame.

>>> data = xr.Dataset({"gap": ("temperature", [0.5, np.nan], {"units": "eV"})}, {"temperature": [300.0, 600.0]})
>>> print(to_table(data, "temperature").to_csv(index=False, na_rep="nan"), end="")
temperature,gap (eV)
300.0,0.5
600.0,nan
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ..base.constants import BOLTZMANN_EV
from ..base.rounding import two_digits, with_errors
from .normalization import in_units

SHORT = (
    "n_atoms", "n_samples", "n_effective", "effective_sample_size", "chemical_potential", "fermi_level", "gap", "heat_capacity", "entropy", "free_energy",
    "dos_at_fermi_level", "conduction_electrons", "holes", "extrapolation_grade", "extrapolation_grade_max", "n_far_outside",
)  # fmt: skip
"""Variables of the short table, each with its errors."""
DIGITS = 8
"""Significant digits of ``thermo.csv``; netCDF has all."""


@dataclass(frozen=True)
class Table:
    """Cells of text under names and units."""

    names: list[str]
    units: list[str]
    rows: list[list[str]]

    def text(self) -> list[str]:
        """Aligned columns for a terminal."""
        rows = [self.names, self.units, *self.rows]
        widths = [max(len(row[k]) for row in rows) for k in range(len(self.names))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return [*lines[:2], "  ".join("-" * width for width in widths), *lines[2:]]

    def markdown(self) -> list[str]:
        """A table of Markdown."""
        head = [f"{name} ({unit})" if unit else name for name, unit in zip(self.names, self.units, strict=True)]
        return ["| " + " | ".join(row) + " |" for row in (head, ["---:"] * len(head), *self.rows)]


def result_table(result: xr.Dataset, normalization: str | None = None) -> Table:
    """The essence of an analysis: one row per temperature, C_el with both errors; an unknown error is ``?``.

    ``grade`` is the largest extrapolation grade of the frames (:mod:`petdos_md.models.rigidity`); there is none if the model does not know.

    :param result: of :func:`petdos_md.analyze`, per structure
    :param normalization: what C_el refers to, see :func:`petdos_md.results.normalization.in_units`; if None, the structure in one column
        and an atom in the next
    """
    hot, graded = electrons_apart(result), "extrapolation_grade_max" in result
    names = [
        *(("T", "T_e") if hot else ("T",)),
        "frames",
        "independent",
        *(["grade"] * graded),
        "mu",
        "E_F",
        "gap at 0.1",
    ]
    units = [*(("K", "K") if hot else ("K",)), "", "", *(["up to"] * graded), "eV", "eV", "eV"]
    capacities: list[tuple[str, np.ndarray]]
    endings = ("", "_model_std", "_sampling_err")
    per_cell = np.array([result[f"heat_capacity{ending}"].values for ending in endings]).T
    if normalization is None:
        per_atom = per_cell / (result["n_atoms"].values * BOLTZMANN_EV)[:, None]
        capacities = [("meV/K per cell", 1e3 * per_cell), ("k_B per atom", per_atom)]
    else:
        data = in_units(result, normalization)
        unit = str(data["heat_capacity"].attrs["units"])
        capacities = [(unit, np.array([data[f"heat_capacity{ending}"].values for ending in endings]).T)]
    names += ["C_el (± model ± sampling)"] + ["C_el"] * (len(capacities) - 1)
    units += [unit for unit, _ in capacities]
    rows = []
    for i in range(result.sizes["temperature"]):
        at = result.isel(temperature=i)
        n = float(at["n_effective"])
        independent = "?" if math.isnan(n) else ("" if int(at["sampling_reliable"]) else "< ") + f"{n:.0f}"
        levels = [f"{float(at[name]):.3f}" for name in ("chemical_potential", "fermi_level", "gap")]
        cells = [with_errors(list(values[i])) for _, values in capacities]
        grade = [two_digits(float(at["extrapolation_grade_max"]))] if graded else []
        kinds = ("ensemble_temperature", "temperature") if hot else ("temperature",)
        temperatures = [f"{float(at[name]):g}" for name in kinds]
        rows.append([*temperatures, f"{int(at['n_samples'])}", independent, *grade, *levels, *cells])
    return Table(names, units, rows)


def electrons_apart(result: xr.Dataset) -> bool:
    """Whether the electrons have temperatures of their own."""
    return not np.allclose(result["temperature"], result.get("ensemble_temperature", result["temperature"]))


def short_table(result: xr.Dataset) -> pd.DataFrame:
    """What is mostly wanted of an analysis, one row for each temperature: the columns of ``thermo.csv``."""
    errors = ("", "_model_std", "_sampling_err")
    names = [f"{name}{ending}" for name in SHORT for ending in errors if f"{name}{ending}" in result]
    return to_table(result[names], "temperature")


def to_table(data: xr.Dataset, dim: str) -> pd.DataFrame:
    """Coordinates and variables along one dimension alone, as columns."""
    names = [name for name in (*data.coords, *data.data_vars) if data[name].dims == (dim,)]
    return pd.DataFrame({column_label(data[name]): data[name].values for name in names})


def column_label(variable: xr.DataArray) -> str:
    """Name and unit, ``heat_capacity (eV/K)``."""
    unit = str(variable.attrs.get("units", ""))
    return f"{variable.name} ({unit})" if unit not in ("", "1") else str(variable.name)


def write_csv(table: pd.DataFrame, path: str | Path, digits: int | None = None) -> None:
    """Write a table, ``nan`` for what is not known.

    :param digits: significant ones; if None, floats are in the shortest form that reads back to the same number
    """
    form = None if digits is None else f"%.{digits}g"
    table.to_csv(path, index=False, na_rep="nan", lineterminator="\n", float_format=form)
