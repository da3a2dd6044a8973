"""What the demo shows: two figures that are redrawn while it runs, a table at its end.

>>> print(table({"aluminium": analyze("al.zarr")}, {}))          # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import xarray as xr

from ..analysis.analyze import analyze
from ..base.constants import BOLTZMANN_EV
from ..base.errors import PetdosError, SettingError
from ..base.rounding import with_errors
from ..models.model import DOSModel
from ..results.plot import plot_dos, plot_heat_capacity, save
from ..traces.trace import Trace

REFRESH_S = 20.0
"""Seconds between redrawn figures."""


def table(analyses: dict[str, xr.Dataset], costs: dict[str, dict[str, float]]) -> str:
    """One row for each system and temperature.

    :param analyses: of :func:`petdos_md.analyze`, by system
    :param costs: by system and temperature (``f"{T:g}"``): time of the observer, in % of that of the dynamics
    """
    head = ["system", "T", "frames", "mu", "E_F", "gap", "C_el (± model ± sampling)", "cost"]
    units = ["", "K", "", "eV", "eV", "eV", "k_B/atom", "% of MD"]
    rows = [head, units]
    for name, data in analyses.items():
        for i, temperature in enumerate(data["temperature"].values):
            cost = costs.get(name, {}).get(f"{temperature:g}", math.nan)
            rows.append([name if i == 0 else "", f"{temperature:g}", *_cells(data.isel(temperature=i), cost)])
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


class Figures:
    """The two figures, drawn from what the traces hold so far.

    :param traces: by name of the system; they need not exist yet
    """

    def __init__(self, folder: Path, model: DOSModel, traces: dict[str, Path]) -> None:
        self.folder, self.model, self.traces = folder, model, traces
        self._last_s = time.monotonic()

    def refresh(self) -> None:
        """Draw if the figures are old."""
        if time.monotonic() - self._last_s < REFRESH_S:
            return
        analyses: dict[str, xr.Dataset] = {}
        for name, path in self.traces.items():
            try:
                if path.exists() and len(trace := Trace.open(path, "r")):
                    analyses[name] = analyze(trace, self.model)
            except PetdosError:  # too little to draw yet
                continue
        if analyses:
            self.draw(analyses)
        self._last_s = time.monotonic()

    def draw(self, analyses: dict[str, xr.Dataset]) -> None:
        """Replace the files as a whole, so that a viewer never sees half a figure."""
        for name, plot in (("dos", plot_dos), ("heat_capacity", plot_heat_capacity)):
            temporary = self.folder / f".{name}.new.png"
            save(plot(analyses), temporary)
            os.replace(temporary, self.folder / f"{name}.png")


class Costs:
    """Wall times by system and temperature, kept on disk for a demo that is interrupted.

    :raises SettingError: if the file holds something else
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: dict[str, dict[str, list[float]]] = {}
        if path.exists():
            try:
                for system, times in json.loads(path.read_text()).items():
                    self.times[system] = {
                        t: [float(md_s), float(observer_s)] for t, (md_s, observer_s) in times.items()
                    }
            except (ValueError, TypeError, AttributeError):
                raise SettingError(
                    f"{path}: expected the wall times of a demo, got something else; remove it"
                ) from None

    def add(self, system: str, temperature_K: float, md_s: float, observer_s: float) -> None:
        """More time spent."""
        times = self.times.setdefault(system, {}).setdefault(f"{temperature_K:g}", [0.0, 0.0])
        times[0] += md_s
        times[1] += observer_s
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.write_text(json.dumps(self.times, indent=1) + "\n")
        os.replace(temporary, self.path)

    def percent(self, system: str) -> dict[str, float]:
        """Time of the observer in % of that of the dynamics."""
        return {t: 100 * observer / md for t, (md, observer) in self.times.get(system, {}).items() if md > 0}


def _cells(data: xr.Dataset, cost: float) -> list[str]:
    """What the table says of one temperature."""
    per_atom = float(data["n_atoms"]) * BOLTZMANN_EV
    heat = [float(data[f"heat_capacity{kind}"]) / per_atom for kind in ("", "_model_std", "_sampling_err")]
    return [
        f"{int(data['n_samples'])}",
        *(f"{float(data[key]):.3f}" for key in ("chemical_potential", "fermi_level", "gap")),
        with_errors(heat),
        "?" if math.isnan(cost) else f"{cost:.1f}",
    ]
