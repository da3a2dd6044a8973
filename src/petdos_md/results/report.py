"""Results on paper: a table for the terminal, and files that other programs read.

>>> print(format_table(result))                  # doctest: +SKIP
>>> write_report(result, "OUT")                  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..analysis.levels import LEVEL_QUANTITIES
from ..analysis.options import LEVEL_METHODS
from ..base.constants import BOLTZMANN_EV
from .folder import make_folder
from .normalization import in_units
from .tables import to_table, write_csv

FILES = ("thermo.csv", "dos.nc", "summary.json", "dos.png", "heat_capacity.png")


def write_report(
    dataset: xr.Dataset, out_dir: str | Path, *, plots: bool = True, normalization: str = "cell"
) -> list[Path]:
    """Write :data:`FILES` into a folder, replacing those of an earlier report.

    ``thermo.csv``: one row per temperature, units in the header, ``nan`` for what is not known. ``dos.nc``: the whole
    dataset (netCDF 4). ``summary.json``: the numbers of the table and where they come from; null for what is not known.

    :param dataset: of :func:`petdos_md.analyze`
    :param plots: whether to draw ``dos.png`` and ``heat_capacity.png``
    :param normalization: what extensive quantities in ``thermo.csv`` and ``summary.json`` refer to, see
        :func:`petdos_md.results.normalization.in_units`; ``dos.nc`` is always per structure
    :returns: paths of the files
    :raises SettingError: if the folder is a trace
    """
    folder = make_folder(out_dir)
    paths = [folder / name for name in (FILES if plots else FILES[:3])]
    converted = in_units(dataset, normalization)
    write_csv(to_table(converted, "temperature"), paths[0])
    # The old file may be a link or be open elsewhere: netCDF would write into it.
    paths[1].unlink(missing_ok=True)
    dataset.to_netcdf(
        paths[1], engine="netcdf4", encoding={str(n): {"zlib": True} for n in dataset.data_vars if dataset[n].ndim}
    )
    paths[2].write_text(json.dumps(summary(converted), indent=2, allow_nan=False) + "\n")
    if plots:
        from .plot import plot_dos, plot_heat_capacity, save

        save(plot_dos(dataset), paths[3])
        save(plot_heat_capacity(dataset), paths[4])
    return paths


def format_table(dataset: xr.Dataset) -> str:
    """The essence for a terminal: aligned columns, one row per temperature.

    C_el comes with both errors: ``value ± model ± sampling``. An unknown error is ``?``.
    """
    rows = [
        ["T", "frames", "independent", "mu", "E_F", "gap", "C_el (± model ± sampling)", "C_el"],
        ["K", "", "", "eV", "eV", "eV", "meV/K per cell", "k_B per atom"],
    ]
    for i in range(dataset.sizes["temperature"]):
        at = dataset.isel(temperature=i)
        n_atoms = float(at["n_atoms"])
        heat = [float(at[f"heat_capacity{suffix}"]) for suffix in ("", "_model_std", "_sampling_err")]
        n_effective = float(at["n_effective"])
        rows.append(
            [
                f"{float(at['temperature']):g}",
                f"{int(at['n_samples'])}",
                "?"
                if math.isnan(n_effective)
                else ("" if int(at["sampling_reliable"]) else "< ") + f"{n_effective:.0f}",
                *(f"{float(at[name]):.3f}" for name in ("chemical_potential", "fermi_level", "gap")),
                with_errors([1e3 * x for x in heat]),
                with_errors([x / n_atoms / BOLTZMANN_EV for x in heat]),
            ]
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(2, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_notes(dataset)])


def summary(dataset: xr.Dataset) -> dict[str, Any]:
    """What ``summary.json`` holds: every number per temperature with its unit, and the attributes of the dataset."""
    columns = [str(n) for n in dataset.data_vars if dataset[n].dims == ("temperature",)]
    values = {name: [_json_number(x) for x in dataset[name].values] for name in columns}
    return {
        "temperature_K": [_json_number(x) for x in dataset["temperature"].values],
        "values": values,
        "units": {name: str(dataset[name].attrs.get("units", "")) for name in columns},
        "n_skipped": int(dataset["n_skipped"]),
        "attributes": {key: _json_attribute(value) for key, value in dataset.attrs.items()},
    }


def _json_number(x: Any) -> int | float | None:
    if isinstance(x, np.bool_ | np.integer):
        return int(x)
    return float(x) if math.isfinite(x) else None


def _json_attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def format_levels(data: xr.Dataset) -> str:
    """Thermal means for a terminal: one row per temperature and quantity, one column per method.

    :param data: of :func:`petdos_md.analysis.levels.frame_levels`
    """
    methods = [method for method in LEVEL_METHODS if f"gap_{method}" in data]
    rows = [["T (K)", "quantity (± model ± sampling)", *methods]]
    for i, temperature in enumerate(data["temperature"].values):
        for quantity, unit in LEVEL_QUANTITIES.items():
            row = [f"{temperature:g}", f"{quantity.replace('_', ' ')} ({unit})"]
            for method in methods:
                endings = ("mean", "mean_model_std", "mean_sampling_err")
                numbers = [float(data[f"{quantity}_{method}_{ending}"][i]) for ending in endings]
                row.append("no network" if math.isnan(numbers[0]) else with_errors(numbers))
            rows.append(row)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_notes(data)])


def _notes(data: xr.Dataset) -> list[str]:
    return [f"note: {note}" for note in np.atleast_1d(data.attrs.get("notes", [])) if str(note)]


def with_errors(numbers: list[float]) -> str:
    """A value and its errors, to two digits of the larger error; a smaller one is never shown as zero."""
    value, *errors = numbers
    known = [e for e in errors if math.isfinite(e) and e > 0]
    scale = max(known, default=0.01 * abs(value))
    if not math.isfinite(value) or scale == 0:
        return " ± ".join([f"{value:g}", *("?" if math.isnan(e) else f"{e:g}" for e in errors)])
    digits = max(0, 1 - math.floor(math.log10(scale)))
    if digits > 6:
        return " ± ".join([f"{value:.3e}", *("?" if math.isnan(e) else f"{e:.1e}" for e in errors)])

    def shown(e: float) -> str:
        text = f"{e:.{digits}f}"
        return "?" if math.isnan(e) else f"{e:.0e}" if e > 0 and float(text) == 0 else text

    return " ± ".join([f"{value:.{digits}f}", *map(shown, errors)])
