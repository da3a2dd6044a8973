"""Interatomic potentials by name: what ``petdos md --potential`` understands.

>>> potential = Potential.find("emt")                              # doctest: +SKIP
>>> potential = Potential.find("almgsi-lda", dos_model)            # doctest: +SKIP
>>> atoms.calc = potential.calculator()                            # doctest: +SKIP
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator

from ..base.errors import ModelError, PetdosError, SettingError
from ..base.quiet import hidden, quiet
from ..models.files import as_written, find_model, load_file, shipped_models
from ..models.model import DOSModel
from ..models.upet_potentials import cached_potential, parse


@dataclass(frozen=True)
class Potential:
    """An interatomic potential whose forces depend on the present structure alone.

    Most calculators keep a neighbor list with a skin, so that the last digits of their forces depend on when it was built.
    A run that is resumed from a checkpoint can equal an unbroken one in every bit only if both start anew there:
    :meth:`calculator` is called at every checkpoint.

    :param name: for people and for comparison: "emt", or the path of a model
    :param make: returns an ASE calculator without a history
    """

    name: str
    make: Callable[[], Calculator]

    @classmethod
    def find(cls, name: str, dos_model: DOSModel | None = None) -> Potential:
        """The potential of a name.

        :param name: ``emt``, the name of a shipped model, one of upet as ``pet-mad-s`` (:mod:`petdos_md.models.upet_potentials`), or the path of
            any metatomic model with an energy output
        :param dos_model: if this is the same file, one forward pass will serve both
        :raises SettingError: if there is no such potential
        :raises ModelError: if the file is no model or has no energy output
        """
        if name.lower() == "emt":
            from ase.calculators.emt import EMT

            return cls("emt", EMT)
        if parse(name) is not None and not Path(name).is_file():
            return cls._of_file(cached_potential(name))
        try:
            path = find_model(name)
        except PetdosError:
            raise SettingError(
                f"{name}: no such potential; expected emt, a shipped model ({', '.join(shipped_models()) or 'none'}), one of "
                "upet (pet-mad-s, ...), or the path of a metatomic model (.pt)"
            ) from None
        if dos_model is not None and dos_model.has_energy and _is_of(path, dos_model):
            return cls._of_dos_model(dos_model)
        return cls._of_file(path)

    @classmethod
    def wrap(cls, calculator: Any, name: str = "") -> Potential:
        """Any ASE calculator. It is reset at checkpoints; calculators with a history that outlives that cannot promise
        bitwise equal runs."""
        return cls(name or type(calculator).__name__, functools.partial(_reset, calculator))

    def calculator(self) -> Calculator:
        """An ASE calculator that remembers nothing."""
        return self.make()

    @classmethod
    def _of_dos_model(cls, model: DOSModel) -> Potential:
        from .ase_dynamics import model_name
        from .calculator import DOSCalculator

        return cls(model_name(model.path) or "model", functools.partial(DOSCalculator, model))

    @classmethod
    def _of_file(cls, path: Path) -> Potential:
        module = load_file(path)
        if "energy" not in module.capabilities().outputs:
            raise ModelError(f"{path}: has no energy output, so it cannot drive dynamics; give another --potential")

        class AsWritten(metatomic_calculator()):  # type: ignore[misc]  # a class that is not known before
            def calculate(self, *args: Any, **kwargs: Any) -> None:
                with as_written():
                    super().calculate(*args, **kwargs)

        # No skin: neighbors, and with them the rounding of the forces, then depend on the structure alone.
        calculator = AsWritten(module, neighbor_skin=0.0)
        return cls(str(path.resolve()), functools.partial(_reset, calculator))


def metatomic_calculator() -> Any:
    """The class of metatomic's ASE calculator.

    It would import NVIDIA's neighbor lists where they are installed (upet needs them). That takes three seconds, and they work on GPUs alone.
    """
    import torch

    with quiet(), nullcontext() if torch.cuda.is_available() else hidden("nvalchemiops"):
        from metatomic_ase import MetatomicCalculator
    return MetatomicCalculator


def _is_of(path: Path, model: DOSModel) -> bool:
    """Whether a model was loaded from this file; one that was made in memory has none."""
    return model.path != "" and path.resolve() == find_model(model.path).resolve()


def _reset(calculator: Any) -> Any:
    calculator.reset()
    return calculator
