"""``petdos ramp``: runs whose temperature changes."""

from __future__ import annotations

import argparse

from .arguments import Commands, add_path, add_results, new_command, steps_from_to


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "ramp",
        "Follow a run whose temperature changes (melting, quenching), in windows of time: heating and cooling stay apart.\n"
        "Writes ramp.csv, ramp.nc and ramp.png.",
        "  petdos ramp quench.zarr --window 20 -o results",
        run,
    )
    add_path(parser, "traces", nargs="+", metavar="X.zarr", folder=True, help="one trace, or several of the same model")
    add_path(parser, "--model", metavar="M", help="the model, if it is no longer where the trace says")
    parser.add_argument(
        "--window", type=int, default=20, metavar="N", help="frames averaged together (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=steps_from_to, metavar="FROM:TO", help="these only, both included; either may be left out"
    )
    parser.add_argument("--replica", type=int, nargs="+", metavar="N", help="these only")
    add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Average windows, print their table, write files."""
    import numpy as np

    from ..analysis.ramps import ramp
    from ..base.constants import BOLTZMANN_EV
    from ..base.rounding import with_errors
    from ..results.folder import check_folder, make_folder
    from ..results.netcdf import write_netcdf
    from ..results.tables import to_table, write_csv

    check_folder(args.output)
    limits = args.steps or (None, None)
    data = ramp(args.traces, args.model, window=args.window, steps=limits, replicas=args.replica)
    folder = make_folder(args.output)
    paths = [folder / "ramp.csv", folder / "ramp.nc"]
    write_csv(to_table(data, "window"), paths[0], 8)
    write_netcdf(data, paths[1])
    if not args.no_plots:
        from ..results.ramps import plot_ramp
        from ..results.style import save

        paths.append(save(plot_ramp(data), folder / "ramp.png"))
    hot = bool(data["electronic_temperature"].notnull().any())
    head = f"{'time (ps)':>10} {'T (K)':>8} {'K/ps':>9} {'frames':>7} {'gap (eV)':>9}"
    several = len(np.unique(data["replica"])) > 1
    print(f"{' replica' if several else ''}{head}{' T_e (K)'.rjust(10) if hot else ''}  C_el (k_B/atom, ± model)")
    for i in range(data.sizes["window"]):
        at = data.isel(window=i)
        unit = float(at["n_atoms"]) * BOLTZMANN_EV
        heat = with_errors([float(at[f"heat_capacity{ending}"]) / unit for ending in ("", "_model_std")])
        numbers = f"{float(at['time']):10.3f} {float(at['temperature']):8.1f} {float(at['rate']):9.1f} {int(at['n_frames']):7d}"
        electrons = f" {float(at['electronic_temperature']):9.1f}" if hot else ""
        replica = f"{int(at['replica']):8d}" if several else ""
        print(f"{replica}{numbers} {float(at['gap']):9.3f}{electrons}  {heat}")
    print("written: " + " ".join(map(str, paths)))
    return 0
