"""A warning, once, when the structures of a simulation are far from all that the DOS model was trained on.

>>> watch = ExtrapolationWatch(model)                                          # doctest: +SKIP
>>> watch.see(sample, "step 1200 of replica 0", atoms)                         # doctest: +SKIP
almgsi-lda: step 1200 of replica 0 is far outside its training set (extrapolation grade 9.4; ...)

The grade comes from the features of the sample at no cost (:mod:`petdos_md.models.rigidity`). Only for the warning the network is asked
for the features of every atom: an element is named with the atoms that are by themselves beyond what 99 % of its atoms in the
training set are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from ase import Atoms

from ..base.errors import PetdosError
from ..base.sample import Sample
from ..models.model import DOSModel
from ..models.rigidity import FAR_OUTSIDE, OUTSIDE

logger = logging.getLogger(__name__)


class ExtrapolationWatch:
    """Looks at every sample, speaks once.

    :param model: that the samples are of
    :param say: what takes the warning; by default the log
    """

    def __init__(self, model: DOSModel, say: Callable[[str], None] = logger.warning) -> None:
        self._model, self._say = model, say
        self._has_said = False

    def see(self, sample: Sample, where: str, atoms: Atoms | Callable[[], Atoms], grade: float | None = None) -> None:
        """Warn of a sample with a grade above :data:`~petdos_md.models.rigidity.FAR_OUTSIDE`, if it is the first one.

        :param where: which one it is, in words
        :param atoms: its structure, or what gives it; of the beads of a path integral, that of one
        :param grade: of the sample, if it is known already
        """
        if self._has_said:
            return
        if grade is None:
            grade = self._model.extrapolation_grade(sample)
        if not grade > FAR_OUTSIDE:
            return
        self._has_said = True
        self._say(
            f"{self._model.info.name}: {where} is far outside its training set (extrapolation grade {grade:.1f}, 99 % of what it was trained "
            f"on have less than {OUTSIDE:g}): neither the DOS nor its model error is to be trusted; {self._elements(atoms if isinstance(atoms, Atoms) else atoms())}. This is said once"
        )

    def _elements(self, atoms: Atoms) -> str:
        try:
            return by_element(self._model, atoms)
        except (PetdosError, RuntimeError) as error:  # the memory, say: no reason to end a simulation
            return f"which atoms cannot be said ({error})"


def by_element(model: DOSModel, atoms: Atoms) -> str:
    """How many atoms of which elements are by themselves unlike those of the training set, in words."""
    grades, symbols = model.extrapolation_grade_of_atoms(atoms), np.asarray(atoms.get_chemical_symbols())
    parts = []
    for symbol in dict.fromkeys(symbols.tolist()):
        own = grades[symbols == symbol]
        if np.isnan(own).all():
            parts.append(f"{symbol} is rare in the training set")
        elif (own > OUTSIDE).any():
            parts.append(f"{int((own > OUTSIDE).sum())} of {len(own)} {symbol} (grade up to {own.max():.1f})")
    if not parts:
        return "no atom is by itself, their mean is (density, composition or order)"
    return f"by atoms: {', '.join(parts)}"
