"""Results and traces for other programs: ASE, pymatgen, xarray.

>>> dos = to_ase(result, temperature_K=300)                                # doctest: +SKIP
>>> complete = to_pymatgen(result, temperature_K=300)                      # doctest: +SKIP
>>> data = trace_dataset("run.zarr")                                       # doctest: +SKIP
>>> data["readout"] @ data["features"][0]           # the DOS of a frame, with nothing of this package      # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..analysis.inputs import find_readout, model_attributes
from ..base.errors import ModelError, SettingError
from ..models.readout import Readout
from ..traces.schema import COLUMNS
from ..traces.trace import Trace
from .netcdf import by_cf
from .provenance import trace_hash

if TYPE_CHECKING:
    from ase.spectrum.dosdata import GridDOSData


def to_ase(result: xr.Dataset, temperature_K: float | None = None) -> GridDOSData:
    """The average DOS as ``ase.spectrum.dosdata.GridDOSData``, states/eV of the structure on the axis of the result.

    :param result: of :func:`petdos_md.analyze`
    :param temperature_K: needed if there are several
    :raises SettingError: if that temperature is not there
    """
    from ase.spectrum.dosdata import GridDOSData

    at = at_temperature(result, temperature_K)
    info = {"label": f"{float(at['temperature']):g} K", "reference": str(result.attrs["energy_reference"])}
    return GridDOSData(at["energy"].values, at["dos"].values, info=info)


def to_pymatgen(result: xr.Dataset, temperature_K: float | None = None) -> Any:
    """The average DOS as ``pymatgen.electronic_structure.dos.Dos``, both spins together, with the Fermi level.

    :param result: of :func:`petdos_md.analyze`
    :param temperature_K: needed if there are several
    :raises SettingError: if that temperature is not there, or pymatgen is missing
    """
    try:
        from pymatgen.electronic_structure.core import Spin
        from pymatgen.electronic_structure.dos import Dos
    except ImportError:
        raise SettingError("pymatgen is not installed; install it with: pip install pymatgen") from None
    at = at_temperature(result, temperature_K)
    level = 0.0 if result.attrs["energy_reference"] == "fermi" else float(at["fermi_level"])
    return Dos(level, at["energy"].values, {Spin.up: at["dos"].values})


def dos_table(result: xr.Dataset) -> pd.DataFrame:
    """Energies and, for every temperature, the DOS with both errors, as columns."""
    zero = "E - E_F (eV)" if result.attrs["energy_reference"] == "fermi" else "E (eV, model's own zero)"
    columns: dict[str, np.ndarray] = {zero: result["energy"].values}
    unit = str(result["dos"].attrs["units"])
    for i, temperature in enumerate(result["temperature"].values):
        for ending, word in (("", ""), ("_model_std", " model error"), ("_sampling_err", " sampling error")):
            columns[f"DOS at {temperature:g} K{word} ({unit})"] = result[f"dos{ending}"].values[i]
    return pd.DataFrame(columns)


def at_temperature(result: xr.Dataset, temperature_K: float | None) -> xr.Dataset:
    """The part of one temperature.

    :raises SettingError: if it is not there, or none is given and there are several
    """
    if "temperature" not in result.dims:  # one was chosen before
        result = result.expand_dims("temperature")
    known = result["temperature"].values
    if temperature_K is None and len(known) == 1:
        return result.isel(temperature=0)
    listed = ", ".join(f"{t:g}" for t in known)
    if temperature_K is None:
        raise SettingError(f"the result has the temperatures {listed} K; say which, temperature_K=...")
    found = np.flatnonzero(np.isclose(known, temperature_K, rtol=1e-6))
    if not len(found):
        raise SettingError(f"the result has no {temperature_K:g} K, only {listed} K")
    return result.isel(temperature=int(found[0]))


def trace_dataset(
    trace: Trace | str | os.PathLike[str],
    model: str | os.PathLike[str] | Readout | None = None,
    *,
    members: bool = False,
) -> xr.Dataset:
    """A trace with what turns its features into densities of states, CF conventions, nothing of this package needed to read it.

    ``readout @ features`` is the DOS (states/eV of the structure) on ``energy``; with members, ``deviations @ features`` is what each member
    adds to it.

    :param model: as for :func:`petdos_md.analyze`; a trace whose model is gone is exported without the readout
    :param members: with the weights of the ensemble, which may be large
    :raises NoSamplesError, TraceError, ModelError: as :func:`petdos_md.analyze`
    """
    opened = trace if isinstance(trace, Trace) else Trace.open(trace, "r")
    info, attributes = opened.model, opened.attributes
    variables: dict[str, Any] = {
        name: ("sample", getattr(opened, name), {"long_name": note, "units": unit or "1"})
        for name, (_, unit, note) in COLUMNS.items()
    }
    note = "features that the DOS is linear in"
    variables["features"] = ("sample", "feature"), np.asarray(opened.features), {"long_name": note, "units": "1"}
    coords: dict[str, Any] = {}
    try:
        readout = find_readout(model, info, str(opened.path))
    except ModelError:
        if model is not None:
            raise
        readout = None
    if readout is not None:
        energies = {"long_name": "energy on the model's own axis", "units": "eV"}
        coords["energy"] = "energy", readout.grid.energies, energies
        about = {"long_name": "DOS (both spins, of the structure) = readout @ features", "units": "states/eV"}
        coords["readout"] = ("energy", "feature"), readout.project(np.eye(readout.grid.n)), about
        if members and readout.n_members:
            about = {"long_name": "DOS of a member minus DOS = deviations @ features", "units": "states/eV"}
            variables["deviations"] = ("member", "energy", "feature"), _deviations(readout), about
    result = xr.Dataset(variables, coords)
    result.attrs = {
        **model_attributes(info, readout),
        "engine": str(attributes["engine"]),
        "electrons": json.dumps(info.electrons),
        "timestep_fs": float(opened.timestep_fs),
        "metadata": json.dumps(attributes["metadata"]),
        "trace": str(opened.path),
        "trace_sha256": trace_hash(opened),
    }
    data = by_cf(result)
    data.attrs["title"] = (
        "Electronic record of a simulation: features of frames, and the readout that gives their densities of states"
    )
    return data


def write_dataset(data: xr.Dataset, path: str | Path) -> Path:
    """Write netCDF (``.nc``) or a zarr store (``.zarr``), by the ending of the path.

    :raises SettingError: for another ending, if something is there already, or if zarr is not installed
    """
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise SettingError(f"{path}: expected a path that ends in .nc or .zarr")
    if os.path.lexists(path):
        raise SettingError(f"{path}: exists already; give another path, or remove it")
    if path.suffix == ".nc":
        data.to_netcdf(path, engine="netcdf4")
        return path
    try:
        with warnings.catch_warnings():
            # Readers of xarray look for it first; others find the metadata of each array where the format has them.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            data.to_zarr(path, mode="w-", zarr_format=3, consolidated=True)
    except ImportError:
        raise SettingError(
            "a zarr store needs zarr; install it with: pip install zarr, or give a path that ends in .nc"
        ) from None
    return path


def _deviations(readout: Readout) -> np.ndarray:
    """``(n_members, n_channels, n_features)``, by applying the members to unit features."""
    units = np.eye(readout.n_features)
    own = readout.dos(units)
    return np.stack([(readout.members(units, k, k + 1)[:, 0] - own).T for k in range(readout.n_members)])
