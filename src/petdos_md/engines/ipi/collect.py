"""A trace from what i-PI has written: features among the extras, sorted by ``ensemble_temperature``.

For simulations whose server cannot hold the model: a driver (``petdos_features.py``, or ``petdos_potential.py`` with ``features=True``) sends
features as extras, i-PI writes them, and this module sorts them into ensembles afterwards.

>>> collect("input.xml", model, "init.xyz", "run.zarr")          # doctest: +SKIP

Which files: the input names them, in a ``<trajectory ... extra_type='petdos'>`` (``extras`` or ``extras_component_raw``) and a
``<properties>`` with at least ``step`` and ``ensemble_temperature``. After a restart i-PI appends to its files what it does again: where
steps go back, the later part holds.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ...base.errors import SettingError, TraceError
from ...base.sample import Sample
from ...models.model import DOSModel
from ...traces.trace import Trace
from .asking import EXTRA
from .input_file import describe_input

_HEADER = re.compile(rb"#EXTRAS\w*\(petdos\)#\s*Step:\s*(\d+)")
_COLUMNS = {
    "step": ("number", ""),
    "time": ("time", "femtosecond"),
    "ensemble_temperature": ("temperature", "kelvin"),
    "ensemble_pressure": ("pressure", "gigapascal"),
    "temperature": ("temperature", "kelvin"),
    "potential": ("energy", "electronvolt"),
    "volume": ("volume", "angstrom3"),
}


def collect(
    path: str | os.PathLike[str],
    model: DOSModel,
    structure: Atoms,
    output: str | os.PathLike[str],
    *,
    burn_in: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Make a trace of the files that an i-PI simulation has written into the folder of its input.

    The replica of a sample is the rank of its temperature, or the number of its system if several systems share a temperature.
    Beads are averaged. Step 0 is left out, as it is by an observer in the server.

    :param path: the input of i-PI, or a RESTART
    :param structure: the atoms of the simulation
    :param output: the trace; must not exist
    :param progress: called with the number of samples just added
    :raises SettingError: if the input names no such files, they are not there, or do not belong together
    :raises StructureError: if the model does not know an element or its number of electrons
    :raises TraceError: if the output exists
    """
    path, output = (Path(given).expanduser().absolute() for given in (path, output))
    if os.path.lexists(output):
        raise TraceError(f"{output}: exists; remove it or choose another -o")
    model.check(structure)
    n_electrons = model.n_electrons(structure)
    prefix, trajectory, properties, columns = _outputs(path)
    systems = [
        _System(path.parent, name, prefix, trajectory, properties, columns, model.info.n_features)
        for name in _system_names(path.parent, prefix, properties)
    ]
    steps = sorted(set.intersection(*(set(system.rows) & set(system.places) for system in systems)))
    steps = [step for step in steps if step >= max(burn_in, 1)]
    if not steps:
        raise SettingError(
            f"{path}: no step has both features and properties in all systems; give both outputs the same stride"
        )
    replicas = _Replicas(path, systems, steps[0])
    about = describe_input(path)
    about["metadata"] |= {
        "formula": structure.get_chemical_formula(),
        "beads": systems[0].n_beads,
        **replicas.metadata(),
    }
    try:
        with Trace.open(output, model=model, engine="i-pi", **about) as trace:
            for step in steps:
                for system, labels in replicas.of(step):
                    known: dict[str, Any] = {"n_atoms": len(structure), "n_electrons": n_electrons, "step": step}
                    trace.append(Sample(features=system.features(step), model=model.info, **known, **labels))
                if progress is not None:
                    progress(len(systems))
    except SettingError:
        # Half a trace would only stand in the way of the same command, put right.
        shutil.rmtree(output)
        raise
    return Trace.open(output, "r")


class _Replicas:
    """Which replica a system is at a step: the rank of its temperature, or its number if systems share a temperature."""

    def __init__(self, path: Path, systems: list[_System], first_step: int) -> None:
        self._path, self._systems, self._first_step = path, systems, first_step
        self._ladder = self._temperatures(first_step)
        self._distinct = all(high > low * (1 + 1e-6) for low, high in zip(self._ladder, self._ladder[1:], strict=False))

    def of(self, step: int) -> Iterator[tuple[_System, dict[str, Any]]]:
        """The systems at a step, with the labels of their samples.

        :raises SettingError: if the temperatures are no longer those of the first step
        """
        if not np.allclose(self._temperatures(step), self._ladder, rtol=1e-6):
            raise SettingError(
                f"{self._path}: the temperatures at step {step} are not those of step {self._first_step}; ramps cannot be averaged"
            )
        for index, system in enumerate(self._systems):
            known = system.rows[step]
            temperature = float(f"{known['ensemble_temperature']:.7g}")
            rank = int(np.searchsorted(self._ladder, temperature * (1 - 1e-6)))
            yield (
                system,
                {
                    "replica": rank if self._distinct else index,
                    "temperature_K": temperature,
                    "volume_A3": known.get("volume", math.nan),
                    "time_fs": known.get("time", math.nan),
                    "kinetic_temperature_K": known.get("temperature", math.nan),
                    "potential_energy_eV": known.get("potential", math.nan),
                },
            )

    def metadata(self) -> dict[str, Any]:
        """Temperatures and pressures by replica, where they stay with it; pressures if i-PI wrote them."""
        rows = [system.rows[self._first_step] for system in self._systems]
        if not self._distinct and not np.allclose(self._ladder, self._ladder[0], rtol=1e-6):
            return {}  # exchanges may have moved temperatures from system to system
        if self._distinct:
            rows.sort(key=lambda row: row["ensemble_temperature"])
        temperatures = [float(f"{row['ensemble_temperature']:.7g}") for row in rows]
        pressures = [row.get("ensemble_pressure", math.nan) for row in rows]
        if not self._distinct or not np.isfinite(pressures).all():
            return {"temperatures_K": temperatures}
        return {"temperatures_K": temperatures, "pressures_GPa": [float(f"{value:.7g}") for value in pressures]}

    def _temperatures(self, step: int) -> list[float]:
        return sorted(system.rows[step]["ensemble_temperature"] for system in self._systems)


class _System:
    """The files of one system.

    ``rows``: properties by step; ``places``: where the features of a step are; ``n_beads``.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        prefix: str,
        trajectory: str,
        properties: str,
        columns: dict[str, int],
        n_features: int,
    ) -> None:
        lead = f"{name}_" if name else ""
        self.rows = _read_properties(folder / f"{lead}{prefix}{properties}", columns)
        whole = folder / f"{lead}{prefix}{trajectory}"
        beads = sorted(p for p in folder.glob(f"{whole.name}_*") if re.fullmatch(r"\d+", p.name[len(whole.name) + 1 :]))
        self._files = [whole] if whole.exists() else beads
        if not self._files:
            raise SettingError(f"{whole}: no such file, nor one for each bead; keep the outputs beside the input")
        self._n_features = n_features
        self._by_file = [_index(file) for file in self._files]
        self.places = set.intersection(*(set(found) for found in self._by_file))
        last = max(self.places, default=None)
        # What a kill cut short at the end of a file.
        while last is not None and self._lines(last) is None:
            self.places.remove(last)
            last = max(self.places, default=None)
        self.n_beads = len(self._lines(last) or []) if last is not None else 0

    def features(self, step: int) -> np.ndarray:
        """Mean over the beads.

        :raises SettingError: if a line is damaged
        """
        lines = self._lines(step)
        if lines is None:
            raise SettingError(
                f"{self._files[0]}: the features of step {step} are damaged or not of this model ({self._n_features} numbers "
                "expected)"
            )
        return np.mean(lines, axis=0)

    def _lines(self, step: int) -> list[np.ndarray] | None:
        found: list[np.ndarray] = []
        for file, places in zip(self._files, self._by_file, strict=True):
            start, stop = places[step]
            with file.open("rb") as stream:
                stream.seek(start)
                text = stream.read(stop - start)
            for line in text.splitlines():
                if not line.strip():
                    continue
                try:
                    numbers = np.array(line.split(), dtype=np.float64)
                except ValueError:
                    return None
                if len(numbers) != self._n_features:
                    return None
                found.append(numbers)
        return found or None


def _index(file: Path) -> dict[int, tuple[int, int]]:
    """Where the numbers of each step begin and end."""
    starts: list[tuple[int, int, int]] = []
    offset = 0
    with file.open("rb") as stream:
        for line in stream:
            match = _HEADER.search(line) if b"#EXTRAS" in line else None
            if match:
                starts.append((int(match[1]), offset, offset + len(line)))
            offset += len(line)
    ends = [start for _, start, _ in starts[1:]] + [offset]
    found: dict[int, tuple[int, int]] = {}
    for (step, _, begin), end in zip(starts, ends, strict=True):
        _drop_from(found, step)
        found[step] = begin, end
    return found


def _drop_from(found: dict[int, Any], step: int) -> None:
    """Forget what a simulation that went back to an earlier step has given up."""
    while found and next(reversed(found)) >= step:
        found.popitem()


def _read_properties(file: Path, columns: dict[str, int]) -> dict[int, dict[str, float]]:
    if not file.exists():
        raise SettingError(f"{file}: no such file; keep the outputs beside the input")
    rows: dict[int, dict[str, float]] = {}
    with file.open() as stream:
        for line in stream:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                values = {name: float(words[column]) for name, column in columns.items()}
            except (IndexError, ValueError):  # cut short by a kill
                continue
            step = int(values["step"])
            _drop_from(rows, step)
            rows[step] = values
    return rows


def _outputs(path: Path) -> tuple[str, str, str, dict[str, int]]:
    """Prefix with its dot, file names of features and of properties, and the columns of these."""
    from ipi.engine.outputs import PropertyOutput, TrajectoryOutput
    from ipi.engine.properties import getkey
    from ipi.inputs.outputs import InputOutputs
    from ipi.utils.io.inputs.io_xml import xml_parse_file

    if not path.exists():
        raise SettingError(f"{path}: no such file; give the input of i-PI, or a RESTART")
    with path.open() as stream:
        root = xml_parse_file(stream).fields[0][1]
    element = next((value for name, value in root.fields if name == "output"), None)
    if element is None:
        raise SettingError(f"{path}: has no <output>")
    parsed = InputOutputs()
    parsed.parse(element)
    outputs = parsed.fetch()
    prefix = f"{outputs.prefix}." if outputs.prefix else ""
    trajectory = next((o.filename for o in outputs if isinstance(o, TrajectoryOutput) and o.extra_type == EXTRA), None)
    if trajectory is None:
        raise SettingError(
            f"{path}: writes no features; add <trajectory ... extra_type='{EXTRA}'> extras </trajectory> to <output>"
        )
    candidates = []
    for output in outputs:
        listed = [str(what) for what in output.outlist] if isinstance(output, PropertyOutput) else []
        if {"step", "ensemble_temperature"} <= {getkey(what) for what in listed}:
            candidates.append((output.filename, _positions(path, listed, [getkey(what) for what in listed])))
    if not candidates:
        raise SettingError(
            f"{path}: no <properties> with step and ensemble_temperature{{kelvin}}; add them, at the stride of features"
        )
    return prefix, trajectory, *max(candidates, key=lambda candidate: len(candidate[1]))


def _positions(path: Path, listed: list[str], keys: list[str]) -> dict[str, int]:
    from ipi.engine.properties import Properties

    known = Properties().property_dict
    columns: dict[str, int] = {}
    at = 0
    for what, key in zip(listed, keys, strict=True):
        wanted = _COLUMNS.get(key)
        if wanted is not None and key not in columns and "(" not in what:
            unit = what.split("{")[1].rstrip("} ") if "{" in what else ""
            if wanted[1] and unit != wanted[1]:
                if key == "ensemble_temperature":
                    raise SettingError(f"{path}: {what} among <properties>, expected ensemble_temperature{{kelvin}}")
            else:
                columns[key] = at
        size = known[key].get("size", 1)
        if not isinstance(size, int):  # as many columns as there are atoms: what follows has no known place
            break
        at += size
    return columns


def _system_names(folder: Path, prefix: str, properties: str) -> list[str]:
    tail = f"{prefix}{properties}"
    names = sorted(p.name[: -len(tail)].rstrip("_") for p in folder.glob(f"*{tail}") if not p.name.startswith("#"))
    names = [name for name in names if name == "" or (folder / f"{name}_{tail}").exists()]
    if not names:
        raise SettingError(f"{folder / tail}: no such file, nor one for each system; keep the outputs beside the input")
    return sorted(names, key=lambda name: (len(name), name))
