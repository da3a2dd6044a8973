"""Results as tables: one row for each temperature or frame, units in the header, every digit.

>>> data = xr.Dataset({"gap": ("temperature", [0.5, np.nan], {"units": "eV"})}, {"temperature": [300.0, 600.0]})
>>> print(to_table(data, "temperature").to_csv(index=False, na_rep="nan"), end="")
temperature,gap (eV)
300.0,0.5
600.0,nan
"""

from __future__ import annotations

from pathlib import Path

import numpy as np  # noqa: F401  (for the example)
import pandas as pd
import xarray as xr


def to_table(data: xr.Dataset, dim: str) -> pd.DataFrame:
    """Coordinates and variables along one dimension alone, as columns."""
    names = [name for name in (*data.coords, *data.data_vars) if data[name].dims == (dim,)]
    return pd.DataFrame({column_label(data[name]): data[name].values for name in names})


def column_label(variable: xr.DataArray) -> str:
    """Name and unit, ``heat_capacity (eV/K)``."""
    unit = str(variable.attrs.get("units", ""))
    return f"{variable.name} ({unit})" if unit not in ("", "1") else str(variable.name)


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table: floats in the shortest form that reads back to the same number, ``nan`` for what is not known."""
    table.to_csv(path, index=False, na_rep="nan", lineterminator="\n")
