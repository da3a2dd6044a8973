"""Files for the quasi-harmonic run of phonopy, ``phonopy-qha --efe fe-v.dat e-v.dat thermal_properties-*.yaml``.

>>> paths = write_phonopy(data, "qha")                                    # doctest: +SKIP
>>> [path.name for path in paths]                                         # doctest: +SKIP
['e-v.dat', 'fe-v.dat', 'free_energy.csv']

``e-v.dat`` has a volume and its static energy in each row, ``fe-v.dat`` a temperature and the free energies of the electrons at each volume,
static energies included, as phonopy wants them. Volumes rise from row to row and from column to column: give
``thermal_properties.yaml`` in that order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from ..base.errors import SettingError
from .folder import make_folder
from .tables import write_csv


def write_phonopy(data: xr.Dataset, out_dir: str | Path) -> list[Path]:
    """Write the two files of phonopy, and a table with errors.

    :param data: of :func:`petdos_md.analysis.free_energy.free_energies`
    :returns: paths of the files
    :raises SettingError: if a static energy is not known, or the folder is a trace
    """
    static = data["static_energy"].values
    if not np.isfinite(static).all():
        where = str(data["source"].values[~np.isfinite(static)][0])
        raise SettingError(
            f"{where}: its static energy is not known; give --potential, or --energies with a row for each volume"
        )
    folder = make_folder(out_dir)
    volumes, change = data["volume"].values, data["free_energy_change"].values
    about = f"# {data.attrs['n_atoms']} atoms; from {', '.join(map(str, data['source'].values))}\n"
    static_file, efe = folder / "e-v.dat", folder / "fe-v.dat"
    rows = [f"{volume:18.8f} {energy:18.8f}\n" for volume, energy in zip(volumes, static, strict=True)]
    static_file.write_text(f"#   volume (A^3)       energy (eV)\n{about}{''.join(rows)}")
    rows = [
        f"{temperature:14.4f} " + " ".join(f"{energy:18.10f}" for energy in static + row) + "\n"
        for temperature, row in zip(data["temperature"].values, change, strict=True)
    ]
    header = "# volume (A^3): " + " ".join(f"{volume:.8f}" for volume in volumes)
    efe.write_text(f"{header}\n{about}#   T (K)      free energy (eV) at each volume\n{''.join(rows)}")
    table = data.reset_coords(["volume", "source"]).to_dataframe().reset_index()
    write_csv(table.drop(columns="point"), folder / "free_energy.csv", 10)
    return [static_file, efe, folder / "free_energy.csv"]
