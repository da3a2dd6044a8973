"""Results as netCDF by the CF conventions (https://cfconventions.org), which any program reads that reads netCDF.

>>> udunits("eV/K^2"), udunits("states/eV/atom"), udunits("angstrom^3")
('eV K-2', 'eV-1', 'angstrom3')
>>> write_netcdf(result, "dos.nc")                                          # doctest: +SKIP

Units of files are those of UDUNITS, which has no word for states or atoms. ``long_name`` says what a variable is, and each error is named by
the variable that it belongs to in ``ancillary_variables``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

CONVENTIONS = "CF-1.11"
_COUNTED = ("states", "atom", "samples")


def write_netcdf(data: xr.Dataset, path: str | Path) -> None:
    """Write all variables, compressed; an old file is replaced."""
    path = Path(path)
    # The old file may be a link or be open elsewhere: netCDF would write into it.
    path.unlink(missing_ok=True)
    compressed = {
        str(name): {"zlib": True} for name in data.data_vars if data[name].ndim and data[name].dtype.kind in "fi"
    }
    by_cf(data).to_netcdf(path, engine="netcdf4", encoding=compressed)


def by_cf(data: xr.Dataset) -> xr.Dataset:
    """A copy with the attributes that the conventions ask for."""
    result = data.copy()
    for name, variable in result.variables.items():
        variable.attrs = dict(variable.attrs)
        if "units" in variable.attrs:
            variable.attrs["units"] = udunits(str(variable.attrs["units"]))
        errors = [f"{name}{ending}" for ending in ("_model_std", "_sampling_err") if f"{name}{ending}" in data]
        if errors:
            variable.attrs["ancillary_variables"] = " ".join(errors)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    about: dict[str, Any] = {
        "Conventions": CONVENTIONS,
        "title": "Thermal-average electronic density of states and what follows from it",
        "source": f"petdos-md {version('petdos-md')}, model {data.attrs.get('model', 'unknown')}",
        "references": "doi:10.1039/D5DD00557D",
        "history": f"{now} written by petdos-md {version('petdos-md')}",
    }
    result.attrs = {**about, **data.attrs}
    return result


def udunits(unit: str) -> str:
    """A unit as products of powers, without what is counted."""
    numerator, *denominators = unit.split("/")
    factors = [(word, 1) for word in numerator.split()] + [(word, -1) for part in denominators for word in part.split()]
    parts = []
    for word, sign in factors:
        base, _, power = word.partition("^")
        exponent = sign * int(power or 1)
        if base in _COUNTED or base == "1":
            continue
        # The Boltzmann constant as a unit is no unit of UDUNITS: what is in units of it has none.
        if base != "k_B":
            parts.append(base if exponent == 1 else f"{base}{exponent}")
    return " ".join(parts) or "1"
