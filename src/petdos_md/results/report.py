"""Results on paper: a table for the terminal, and files that people and other programs read.

>>> print(format_table(result))                  # doctest: +SKIP
>>> write_report(result, "OUT")                  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..analysis.levels import LEVEL_QUANTITIES
from ..analysis.options import LEVEL_METHODS
from ..base.errors import SettingError
from .folder import make_folder
from .netcdf import write_netcdf
from .normalization import in_units
from .tables import DIGITS, result_table, short_table, write_csv

FILES = ("thermo.csv", "dos.nc", "summary.json", "provenance.json", "report.html", "report.md")
FIGURES = ("dos", "heat_capacity")
FORMATS = ("png", "pdf", "svg")


def write_report(
    dataset: xr.Dataset,
    out_dir: str | Path,
    *,
    plots: bool = True,
    normalization: str | None = None,
    formats: Sequence[str] = ("png",),
    command: list[str] | None = None,
) -> list[Path]:
    """Write :data:`FILES` and figures into a folder, replacing those of an earlier report.

    ``thermo.csv``: what is mostly wanted, one row per temperature, units in the header, ``nan`` for what is not known. ``dos.nc``: the whole
    dataset (netCDF 4, CF conventions). ``summary.json``: every number per temperature; null for what is not known. ``provenance.json``: where
    it comes from. ``report.html``: all of it as a page that needs no other file; ``report.md`` likewise, with figures beside it.

    :param dataset: of :func:`petdos_md.analyze`
    :param plots: whether to draw figures, and to write the pages
    :param normalization: what extensive quantities refer to in all files, see :func:`petdos_md.results.normalization.in_units`; if None,
        figures are per atom and all else per structure
    :param formats: of the figures beside the page, some of :data:`FORMATS`
    :param command: the words of the command, for the record; those of this process if None
    :returns: paths of the files
    :raises SettingError: if the folder is a trace, or for a format that is not known
    """
    from .provenance import provenance

    check_formats(formats)
    folder = make_folder(out_dir)
    converted = in_units(dataset, normalization or "cell")
    write_csv(short_table(converted), folder / "thermo.csv", DIGITS)
    write_netcdf(converted, folder / "dos.nc")
    (folder / "summary.json").write_text(json.dumps(summary(converted), indent=2, allow_nan=False) + "\n")
    record = provenance(converted, command)
    (folder / "provenance.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    paths = [folder / name for name in FILES[:4]]
    if plots:
        paths += _write_pages(dataset, record, folder, normalization, formats)
    return paths


def check_formats(formats: Sequence[str]) -> None:
    """Whether figures can be written so.

    :raises SettingError: if one is not known
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise SettingError(
            f"got the format {(unknown or ['none'])[0]!r} of figures, expected some of {', '.join(FORMATS)}"
        )


def format_table(dataset: xr.Dataset, normalization: str | None = None) -> str:
    """The essence for a terminal: aligned columns, one row per temperature, and notes.

    C_el comes with both errors: ``value ± model ± sampling``. An unknown error is ``?``.

    :param normalization: what C_el refers to; if None, the structure in one column and an atom in the next
    """
    return "\n".join([*result_table(dataset, normalization).text(), *_carriers(dataset), *_notes(dataset)])


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
                row.append("no network" if math.isnan(numbers[0]) else _level(numbers))
            rows.append(row)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_notes(data)])


def _write_pages(
    dataset: xr.Dataset, record: dict[str, Any], folder: Path, normalization: str | None, formats: Sequence[str]
) -> list[Path]:
    from .page import PageContent, html_page, markdown_page
    from .plot import plot_dos, plot_extrapolation, plot_heat_capacity, save
    from .style import save_svg

    figures = {
        "dos": (
            plot_dos(dataset, normalization=normalization),
            "Thermal-average density of states, with model and sampling errors.",
        ),
        "heat_capacity": (
            plot_heat_capacity(dataset, normalization=normalization),
            "Electronic heat capacity against temperature, with model and sampling errors.",
        ),
    }
    if "extrapolation_grade" in dataset:
        caption = (
            "How far frames are from the training set of the model: median, middle half, 5 to 95 %, and the largest."
        )
        figures["extrapolation"] = plot_extrapolation(dataset), caption
    content = PageContent.of(dataset, record, normalization)
    paths = [save(figure, folder / f"{name}.{ending}") for name, (figure, _) in figures.items() for ending in formats]
    page, text = folder / "report.html", folder / "report.md"
    page.write_text(html_page(content, {caption: save_svg(figure) for figure, caption in figures.values()}))
    text.write_text(markdown_page(content, {caption: f"{name}.{formats[0]}" for name, (_, caption) in figures.items()}))
    return [*paths, page, text]


def _carriers(data: xr.Dataset) -> list[str]:
    if "holes" not in data:
        return []
    lines = []
    for i, temperature in enumerate(data["temperature"].values):
        known = bool(np.isfinite(data["holes_density"][i]))
        names = [f"{name}_density" if known else name for name in ("conduction_electrons", "holes")]
        numbers = [
            f"{name.split('_d')[0].replace('_', ' ')} {float(data[name][i]):.2e} ± {float(data[f'{name}_model_std'][i]):.1e} (model)"
            for name in names
        ]
        lines.append(f"carriers at {temperature:g} K, {'1/cm^3' if known else 'per structure'}: {', '.join(numbers)}")
    return lines


def _level(numbers: list[float]) -> str:
    """To three digits after the point, as all levels; smaller errors as what they are below."""
    value, *errors = numbers
    return " ± ".join(
        [f"{value:.3f}", *("?" if math.isnan(e) else f"{e:.3f}" if e >= 5e-4 or e == 0 else "<0.001" for e in errors)]
    )


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


def _notes(data: xr.Dataset) -> list[str]:
    return [f"note: {note}" for note in np.atleast_1d(data.attrs.get("notes", [])) if str(note)]
