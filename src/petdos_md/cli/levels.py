"""The command ``petdos levels``."""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import xarray as xr

from ..analysis.levels import METHODS, frame_levels
from ..base.errors import SettingError
from ..results.plot import plot_levels, save
from ..results.report import format_levels
from .progress import share_bar


def levels(args: argparse.Namespace) -> int:
    """Read the levels of all frames, print the thermal means, write files."""
    if not 0 <= args.threshold < math.inf:
        raise SettingError(
            f"got --threshold {args.threshold:g}, expected the states/eV/atom below which a gap is, >= 0"
        )
    with share_bar("DOS") as show:
        data = frame_levels(
            args.traces if len(args.traces) > 1 else args.traces[0],
            args.model,
            denoise=True if args.denoise == "auto" else args.denoise,
            methods=args.method or METHODS,
            temperatures_K=args.temperature,
            burn_in=args.burn_in,
            weights=args.weights,
            members=not args.no_members,
            threshold=args.threshold,
            progress=show,
        )
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "levels.csv", folder / "series.csv", folder / "levels.nc"]
    _write(data, "temperature", paths[0])
    _write(data, "frame", paths[1])
    paths[2].unlink(missing_ok=True)
    data.to_netcdf(paths[2], engine="netcdf4")
    if not args.no_plots:
        paths.append(save(plot_levels(data), folder / "levels.png"))
    print(format_levels(data))
    print(f"denoised: {data.attrs['denoise']}; networks: {', '.join(data.attrs['networks'])}")
    print("written: " + " ".join(map(str, paths)))
    return 0


def _write(data: xr.Dataset, dim: str, path: Path) -> None:
    columns = [name for name in (*data.coords, *data.data_vars) if data[name].dims == (dim,)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        units = [data[name].attrs.get("units", "1") for name in columns]
        writer.writerow([str(name) if u == "1" else f"{name} ({u})" for name, u in zip(columns, units, strict=True)])
        for row in zip(*(data[name].values.tolist() for name in columns), strict=True):
            writer.writerow([repr(x) for x in row])
