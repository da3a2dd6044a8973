"""The main job on the shipped model: dynamics of a metal, a semiconductor and an alloy, and what their electrons do.

>>> run_demo("demo", quick=True)          # doctest: +SKIP

One network gives forces and electronic structure in one pass. Figures are refreshed while the runs go on; a demo that was
interrupted goes on where it was, and one that is complete only shows its results again.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.build
from ase import Atoms

from ..analysis.analyze import analyze
from ..base.constants import BOLTZMANN_EV
from ..base.errors import PetdosError, SettingError
from ..engines.md import MDSettings, Simulation, run_md
from ..engines.potentials import Potential
from ..models.model import DOSModel
from ..traces.trace import Trace
from .progress import MDProgress

if TYPE_CHECKING:
    import xarray as xr

MODEL = "almgsi-lda"
REFRESH_S = 20.0
"""Seconds between redrawn figures."""


@dataclass(frozen=True)
class System:
    """A material of the demo."""

    name: str
    file: str
    atoms: Atoms
    temperatures_K: tuple[float, ...]


def systems() -> list[System]:
    """Three materials in small periodic cells, with the lattice constants of the local density approximation."""
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
    from ..results.report import write_report

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    model = DOSModel.load(MODEL)
    potential = Potential.find(MODEL, model)
    job = systems()
    print(f"Model {MODEL}: energy, forces and density of states in one pass; {model.n_members} members tell its error.")
    print(f"Systems: {', '.join(f'{s.name} ({len(s.atoms)} atoms)' for s in job)}.")
    print(
        f"Live figures: {folder / 'dos.png'} and {folder / 'heat_capacity.png'}, redrawn every {REFRESH_S:g} s.",
        flush=True,
    )
    figures = _Figures(folder, model, job)
    costs = _Costs(folder / "timings.json")
    for system in job:
        settings = _settings(system, quick)
        with MDProgress(len(settings.temperatures_K), system.name) as bar:

            def progress(simulation: Simulation, bar: MDProgress = bar) -> None:
                bar(simulation)
                figures.refresh()

            path = folder / f"{system.file}.zarr"
            try:
                results = run_md(system.atoms, potential, model, path, settings, resume=True, progress=progress)
            except SettingError as error:
                raise SettingError(f"{folder} holds another demo; choose another --output ({error})") from None
        for result in (r for r in results if r.observer_s > 0):  # others were complete already
            costs.add(system.file, result.temperature_K, result.md_s, result.observer_s)
    analyses = {s.name: analyze(Trace.open(folder / f"{s.file}.zarr", "r"), model, reference="raw") for s in job}
    figures.draw(analyses)
    for system in job:
        write_report(analyses[system.name], folder / system.file)
    print()
    print(table(analyses, {s.name: costs.percent(s.file) for s in job}))
    print()
    print(f"figures   {folder / 'dos.png'}  {folder / 'heat_capacity.png'}")
    print(f"reports   {'  '.join(str(folder / s.file) for s in job)}")
    print(f"samples   {'  '.join(str(folder / s.file) + '.zarr' for s in job)}")
    return analyses


def table(analyses: dict[str, xr.Dataset], costs: dict[str, dict[str, float]]) -> str:
    """One row for each system and temperature.

    :param analyses: of :func:`petdos_md.analyze`, by system
    :param costs: by system and temperature (``f"{T:g}"``): time of the observer, in % of that of the dynamics
    """
    head = ["system", "T", "frames", "mu", "E_F", "gap", "C_el", "± model", "± sampling", "cost"]
    units = ["", "K", "", "eV", "eV", "eV", "k_B/atom", "", "", "% of MD"]
    rows = [head, units]
    for name, data in analyses.items():
        for i, temperature in enumerate(data["temperature"].values):
            at = data.isel(temperature=i)
            per_atom = float(at["n_atoms"]) * BOLTZMANN_EV
            heat = [float(at[f"heat_capacity{kind}"]) / per_atom for kind in ("", "_model_std", "_sampling_err")]
            cost = costs.get(name, {}).get(f"{temperature:g}", math.nan)
            rows.append(
                [
                    name if i == 0 else "",
                    f"{temperature:g}",
                    f"{int(at['n_samples'])}",
                    *(f"{float(at[key]):.3f}" for key in ("chemical_potential", "fermi_level", "gap")),
                    f"{heat[0]:.4f}",
                    *("?" if math.isnan(x) else f"{x:.1g}" for x in heat[1:]),
                    "?" if math.isnan(cost) else f"{cost:.1f}",
                ]
            )
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.insert(2, "-" * len(lines[0]))
    lines += [
        "mu and E_F are on the model's own energy axis, whose zero has no meaning; their difference has one.",
        "The model's DOS is smeared by 0.3 eV, as its training data: narrow gaps close, and C_el of silicon is too large.",
    ]
    return "\n".join(lines)


def _settings(system: System, quick: bool) -> MDSettings:
    if quick:
        return MDSettings(system.temperatures_K[:2], 20, 2, 3.0, equilibrate=4, seed=2026, checkpoint_every=50)
    return MDSettings(system.temperatures_K, 240, 3, 3.0, equilibrate=45, seed=2026, checkpoint_every=50)


class _Figures:
    """The two figures, drawn from what the traces hold so far."""

    def __init__(self, folder: Path, model: DOSModel, job: Sequence[System]) -> None:
        self.folder, self.model, self.job = folder, model, job
        self._last_s = time.monotonic()

    def refresh(self) -> None:
        """Draw if the figures are old."""
        if time.monotonic() - self._last_s < REFRESH_S:
            return
        analyses: dict[str, Any] = {}
        for system in self.job:
            path = self.folder / f"{system.file}.zarr"
            try:
                if path.exists() and len(trace := Trace.open(path, "r")):
                    analyses[system.name] = analyze(trace, self.model, reference="raw")
            except PetdosError:  # too little to draw yet
                continue
        if analyses:
            self.draw(analyses)
        self._last_s = time.monotonic()

    def draw(self, analyses: dict[str, Any]) -> None:
        """Replace the files as a whole, so that a viewer never sees half a figure."""
        from ..results.plot import plot_dos, plot_heat_capacity, save

        for name, plot in (("dos", plot_dos), ("heat_capacity", plot_heat_capacity)):
            temporary = self.folder / f".{name}.new.png"
            save(plot(analyses), temporary)
            os.replace(temporary, self.folder / f"{name}.png")


class _Costs:
    """Wall times by system and temperature, kept on disk for a demo that is interrupted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.times: dict[str, dict[str, list[float]]] = json.loads(path.read_text())
        except (OSError, ValueError):
            self.times = {}

    def add(self, system: str, temperature_K: float, md_s: float, observer_s: float) -> None:
        """More time spent."""
        times = self.times.setdefault(system, {}).setdefault(f"{temperature_K:g}", [0.0, 0.0])
        times[0] += md_s
        times[1] += observer_s
        self.path.write_text(json.dumps(self.times, indent=1) + "\n")

    def percent(self, system: str) -> dict[str, float]:
        """Time of the observer in % of that of the dynamics."""
        return {t: 100 * observer / md for t, (md, observer) in self.times.get(system, {}).items() if md > 0}
