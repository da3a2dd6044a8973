"""What an input file of i-PI says about its simulation, for traces that are made from its outputs.

>>> describe_input(Path("input.xml"))                     # doctest: +SKIP
{'timestep_fs': 2.0, 'metadata': {'ensemble': 'nvt', 'potential': 'emt', 'bias': 'none', 'seed': 5}}
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def describe_input(path: Path) -> dict[str, Any]:
    """Time step and metadata as :meth:`petdos_md.traces.trace.Trace.open` takes them; what the input does not say is left out.

    The keys are those of an observer in the server (:class:`petdos_md.engines.ipi.setup.Setup`).
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:  # i-PI's own reader allows more than XML does
        return {"timestep_fs": math.nan, "metadata": {}}
    metadata: dict[str, Any] = {}
    modes = {element.get("mode", "").strip() for element in root.iter("dynamics")}
    if len(modes) == 1 and (mode := modes.pop()):
        metadata["ensemble"] = mode
    used = {name for element in root.iter("forces") for name in _force_fields(element)}
    if used:
        metadata["potential"] = " ".join(sorted(used))
    biases = {name for element in root.iter("bias") for name in _force_fields(element)}
    if root.find(".//hamiltonian_weights") is None:
        metadata["bias"] = " ".join(sorted(biases)) or "none"
    seed = (root.findtext("prng/seed") or "").strip()
    if seed.isdigit():
        metadata["seed"] = int(seed)
    return {"timestep_fs": _timestep_fs(root), "metadata": metadata}


def _force_fields(element: ElementTree.Element) -> list[str]:
    forces = element.iter("force")
    return [force.get("forcefield", "").strip() for force in forces if float(force.get("weight", 1.0)) != 0]


def _timestep_fs(root: ElementTree.Element) -> float:
    from ipi.utils.units import unit_to_internal, unit_to_user

    found = set()
    for element in root.iter("timestep"):
        try:
            internal = unit_to_internal(
                "time", element.get("units", "atomic_unit").strip(), float(element.text or "nan")
            )
        except (TypeError, ValueError):
            return math.nan
        found.add(float(f"{unit_to_user('time', 'femtosecond', internal):.9g}"))
    return found.pop() if len(found) == 1 else math.nan
