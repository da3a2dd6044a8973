"""``petdos demo``: the main job on the shipped model, for a metal, a semiconductor and an alloy.

>>> run_demo("demo", quick=True)          # doctest: +SKIP

One network gives forces and electronic structure in one pass. Figures are refreshed while the runs go on; a demo that was
interrupted goes on where it was, and one that is complete only shows its results again.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import SettingError
from .arguments import Commands, add_path, new_command

if TYPE_CHECKING:
    import xarray as xr
    from ase import Atoms

    from ..engines.md import MDSettings, Simulation
    from ..models.model import DOSModel
    from .demo_report import Costs, Figures

MODEL = "almgsi-lda"


@dataclass(frozen=True)
class System:
    """A material of the demo."""

    name: str
    file: str
    atoms: Atoms
    temperatures_K: tuple[float, ...]


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "demo",
        "Run molecular dynamics of aluminium, silicon and an Al-Mg alloy with the shipped model.\n"
        "Ends with a table, figures and traces. Takes less than five minutes on two cores.",
        "  petdos demo --output demo",
        run,
    )
    help_output = "folder for all results (default: %(default)s)"
    add_path(parser, "-o", "--output", default="demo", metavar="DIR", folder=True, help=help_output)
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that everything works")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    run_demo(args.output, quick=args.quick)
    return 0


def systems() -> list[System]:
    """Three materials in small periodic cells, with the lattice constants of the local density approximation."""
    import ase.build

    aluminium = ase.build.bulk("Al", a=3.98, cubic=True) * (2, 2, 2)
    silicon = ase.build.bulk("Si", a=5.40, cubic=True) * (2, 2, 1)
    alloy = ase.build.bulk("Al", a=4.03, cubic=True) * (2, 2, 2)
    alloy.symbols[[3, 9, 18, 29]] = "Mg"
    return [
        System("aluminium", "al", aluminium, (300.0, 600.0, 900.0)),
        System("silicon", "si", silicon, (300.0, 700.0, 1100.0)),
        System("Al28Mg4", "almg", alloy, (300.0, 500.0, 700.0)),
    ]


def run_demo(output: str | os.PathLike[str], quick: bool = False) -> dict[str, xr.Dataset]:
    """Run it, draw it, print it.

    :param output: folder for traces, figures, reports
    :param quick: a few steps at two temperatures, to see that everything works
    :returns: the analysis of each system, by name
    """
    from ..analysis.analyze import analyze
    from ..models.model import DOSModel
    from ..results.report import write_report
    from .demo_report import REFRESH_S, Costs, Figures, table

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    model = DOSModel.load(MODEL)
    job = systems()
    traces = {system.name: folder / f"{system.file}.zarr" for system in job}
    pictures = f"{folder / 'dos.png'}  {folder / 'heat_capacity.png'}"
    print(f"Model {MODEL}: energy, forces and density of states in one pass; {model.n_members} members give its error.")
    print(f"Systems: {', '.join(f'{s.name} ({len(s.atoms)} atoms)' for s in job)}.")
    print(f"Live figures, redrawn every {REFRESH_S:g} s: {pictures}", flush=True)
    figures, costs = Figures(folder, model, traces), Costs(folder / "timings.json")
    for system in job:
        _simulate(system, traces[system.name], model, _settings(system, quick), figures, costs)
    analyses = {name: analyze(path, model) for name, path in traces.items()}
    figures.draw(analyses)
    for system in job:
        write_report(analyses[system.name], folder / system.file)
    print(f"\n{table(analyses, {s.name: costs.percent(s.file) for s in job})}\n")
    print(f"figures   {pictures}")
    print(f"reports   {'  '.join(str(folder / s.file) for s in job)}")
    print(f"samples   {'  '.join(map(str, traces.values()))}")
    return analyses


def _simulate(
    system: System, path: Path, model: DOSModel, settings: MDSettings, figures: Figures, costs: Costs
) -> None:
    from ..engines.md import run_md
    from ..engines.potentials import Potential
    from .progress import MDProgress

    with MDProgress(len(settings.temperatures_K), system.name) as bar:

        def progress(simulation: Simulation) -> None:
            bar(simulation)
            figures.refresh()

        potential = Potential.find(MODEL, model)
        try:
            results = run_md(system.atoms, potential, model, path, settings, resume=True, progress=progress)
        except SettingError as error:
            raise SettingError(f"{path.parent} holds another demo; choose another --output ({error})") from None
    for result in (r for r in results if r.observer_s > 0):  # others were complete already
        costs.add(system.file, result.temperature_K, result.md_s, result.observer_s)


def _settings(system: System, quick: bool) -> MDSettings:
    from ..engines.md import MDSettings

    if quick:
        return MDSettings(system.temperatures_K[:2], 20, 2, 3.0, equilibrate=4, seed=2026, checkpoint_every=50)
    return MDSettings(system.temperatures_K, 240, 3, 3.0, equilibrate=45, seed=2026, checkpoint_every=50)
