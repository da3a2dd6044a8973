"""How the stock ``i-pi input.xml`` gets the observer: a force field that no forces use, and one private door of i-PI.

i-PI has no plug-in point for outputs, but it loads the Python file that an ``<ffdirect>`` names, and keeps the element in every
checkpoint. The file that :func:`snippet` names loads this module, which wraps ``Simulation.bind`` once: after it, each simulation
with such an element gets an observer. ``tests/engines/ipi/test_ipi_hook.py`` fails when i-PI moves that door.

>>> print(snippet("almgsi-lda", every=50, output="run.zarr"))      # doctest: +SKIP
"""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import Any

from ipi.engine.simulation import Simulation
from ipi.pes.dummy import Dummy_driver
from ipi.utils.messages import verbosity, warning

from ...base.electrons import parse_electrons
from ...base.errors import SettingError
from ...base.shipped import shipped_folder
from ...models.model import DOSModel
from .observer import attach, check_start
from .setup import check_version

DRIVERS = shipped_folder("ipi_drivers")
_SETTINGS = {"dos", "every", "output", "burn_in", "max_failed", "periodic", "device", "electrons"}
_OWN = {"verbosity", "verbose", "previous"}
"""Given by i-PI, or kept by us in the checkpoint."""


class ObserverDriver(Dummy_driver):
    """What i-PI takes for a force field. Settings: ``dos`` (model), ``every``, ``output``, and optionally ``burn_in``,
    ``max_failed``, ``periodic``, ``device``, ``electrons`` (``Al=3 Mg=2``).

    :raises SettingError: for a setting that is missing or unknown, or an i-PI that is not supported
    """

    def __init__(self, **settings: Any) -> None:
        check_version()
        unknown = sorted(settings.keys() - _SETTINGS - _OWN)
        missing = sorted({"dos", "every", "output"} - settings.keys())
        if unknown or missing:
            wrong = f"got an unknown one, {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
            raise SettingError(
                f"<parameters> of petdos_observer.py: {wrong}; expected dos, every and output, and optionally "
                f"{', '.join(sorted(_SETTINGS - {'dos', 'every', 'output'}))}"
            )
        self.settings = settings
        super().__init__()
        install()

    def compute(self, cell: Any, pos: Any) -> Any:
        """Never called in a right input: there is nothing to compute.

        :raises SettingError: always
        """
        raise SettingError("petdos_observer.py is no potential; name another force field in <forces>")


def install() -> None:
    """Make i-PI attach observers; a second call does nothing."""
    if hasattr(Simulation.bind, "petdos_wraps"):
        return
    original = Simulation.bind

    @wraps(original)
    def bind(self: Any, read_only: bool = False) -> None:
        if not read_only:
            for hook in _hooks(self):
                check_start(str(hook.driver.settings["output"]), int(self.step))
        original(self, read_only)
        if not read_only:
            _attach_named(self)

    bind.petdos_wraps = original  # type: ignore[attr-defined]
    Simulation.bind = bind


def has_hook(simulation: Any) -> bool:
    """Whether the input of a simulation names the observer."""
    return bool(_hooks(simulation))


def snippet(dos: str, every: int, output: str, burn_in: int = 0) -> str:
    """The element to paste into an input."""
    more = f", burn_in: {burn_in}" if burn_in else ""
    return (
        f"<ffdirect name='petdos'>\n  <pes> custom </pes>\n  <pes_path> {DRIVERS / 'petdos_observer.py'} </pes_path>\n"
        f"  <parameters> {{dos: {dos}, every: {every}, output: {output}{more}}} </parameters>\n</ffdirect>"
    )


def _hooks(simulation: Any) -> list[Any]:
    return [ff for ff in simulation.fflist.values() if isinstance(getattr(ff, "driver", None), ObserverDriver)]


def _attach_named(simulation: Any) -> None:
    hooks = _hooks(simulation)
    used = {force.ffield for system in simulation.syslist for force in (*system.fcomp, *system.ensemble.bcomp)}
    for hook in hooks:
        if hook.name in used:
            raise SettingError(
                f"<force forcefield='{hook.name}'>: petdos_observer.py is no potential; name another one"
            )
        known = hook.driver.settings
        output = Path(str(known["output"])).expanduser()
        electrons = known.get("electrons")
        model = DOSModel.load(
            str(known["dos"]),
            known.get("device"),
            electrons=parse_electrons(None if electrons is None else str(electrons)),
        )
        attach(
            simulation,
            model,
            output,
            every=known["every"],
            burn_in=known.get("burn_in", 0),
            max_failed=known.get("max_failed", 10),
            periodic=known.get("periodic", True),
            previous=_previous(known, output),
        )
        # Into every checkpoint from now on, so that a restart in another folder finds everything.
        hook.pes_path = os.path.abspath(hook.pes_path)
        _keep(hook, "previous", output)
        if os.path.exists(str(known["dos"])):
            _keep(hook, "dos", Path(str(known["dos"])))


def _previous(known: dict[str, Any], output: Path) -> str | None:
    path = known.get("previous")
    if path is None or output.exists():
        return None
    if not os.path.exists(str(path)):
        warning(
            f" @petdos: {path}: the samples of this simulation are no longer there; earlier ones are missing in {output}",
            verbosity.low,
        )
        return None
    return str(path)


def _keep(hook: Any, name: str, path: Path) -> None:
    text = os.path.abspath(path)
    # i-PI splits its parameters at commas and braces.
    if not set(text) & set(",{}"):
        hook.pars[name] = text
