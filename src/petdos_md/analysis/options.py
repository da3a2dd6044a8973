"""The keywords of an analysis, checked once: which frames count, and what becomes of them.

>>> FrameSelection(burn_in=-5)
Traceback (most recent call last):
    ...
petdos_md.base.errors.SettingError: burn_in=-5 (--burn-in) given, expected a number of steps >= 0, or 'auto'
>>> selection, options = split_keywords("analyze", {"burn_in": 500, "reference": "fermi"}, FrameSelection, AnalysisOptions)
>>> selection.burn_in, options.reference, options.align
(500, 'fermi', 'average')

Functions take these keywords flat, ``analyze("run.zarr", burn_in=500, reference="fermi")``; behind them, the objects travel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..base.errors import SettingError
from ..physics.thermo import GAP_THRESHOLD
from .statistics import ERROR_METHODS
from .transforms import FrameTransform
from .weights import WeightsLike, read_weights

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from ..physics.networks import Network

LEVEL_METHODS = ("raw", "denoised", "network")
"""How a level is read off the DOS of a frame, see :mod:`petdos_md.analysis.levels`."""


@dataclass(frozen=True)
class FrameSelection:
    """Which frames of the traces count, and how much.

    :param temperatures_K: those of these ensembles only; all if None
    :param burn_in: leave out samples with a smaller step; ``"auto"``: of each replica, the beginning that drifts
        (:mod:`petdos_md.analysis.burn_in`)
    :param replicas: those of these replicas only; all if None
    :param steps: from the first to the last of these steps, both included; None on either side for no limit
    :param electronic_range_K: among hot electrons of these temperatures, both limits included; None on either side for no limit
    :param weights: statistical weights in place of those of the samples: a
        :class:`~petdos_md.analysis.weights.FrameWeights` or a table of them, or a list with one for each trace
    :raises SettingError: if the burn-in is negative, a list is empty, or the table of weights cannot be read
    """

    temperatures_K: Sequence[float] | None = None
    burn_in: int | str = 0
    replicas: Sequence[int] | None = None
    weights: WeightsLike | Sequence[WeightsLike] | None = None
    steps: tuple[int | None, int | None] | None = None
    electronic_range_K: tuple[float | None, float | None] | None = None

    def __post_init__(self) -> None:
        if self.burn_in != "auto" and (isinstance(self.burn_in, str) or not self.burn_in >= 0):
            raise SettingError(f"burn_in={self.burn_in} (--burn-in) given, expected a number of steps >= 0, or 'auto'")
        for name in ("temperatures_K", "replicas"):
            given = getattr(self, name)
            if given is not None and not (isinstance(given, Collection) and len(given)):
                raise SettingError(f"{name}={given!r} given, expected a list of some, or None for all")
        for name, what in (("steps", "step"), ("electronic_range_K", "temperature")):
            given = getattr(self, name)
            if given is not None and len(given) != 2:
                raise SettingError(
                    f"{name}={given!r} given, expected the first and the last {what}, or None for no limit"
                )
        if self.weights is not None:
            object.__setattr__(self, "weights", read_weights(self.weights))


@dataclass(frozen=True)
class AnalysisOptions:
    """What :func:`petdos_md.analyze` does with the frames.

    :param reference: zero of the energy axis of the DOS: ``raw`` (the model's own, which has no meaning) or ``fermi`` (the
        Fermi level at each temperature: the average DOS, and that of every member, is shifted to its own, interpolated linearly)
    :param align: ``average``, or ``frames``: the DOS of every frame and member is shifted to its own Fermi level before it is
        averaged, so that shifts of the axis from frame to frame do not smear it; needs ``reference="fermi"``
    :param error_method: ``autocorrelation`` or ``blocking``
    :param n_electrons: per structure, if the model does not know it or to replace what it knows
    :param electronic_temperatures_K: evaluate the Fermi function at these temperatures rather than at that of the ensemble, of
        which there must then be one; ``"frames"``: at the mean temperature of the hot electrons of the frames of each ensemble
    :param transform: applied to the DOS of every frame and member before averaging (see
        :class:`~petdos_md.analysis.transforms.FrameTransform`), on the same energies
    :param denoise: whether to denoise every frame and member before averaging (Eqs. 11-16, :mod:`petdos_md.physics.denoise`);
        the Fermi level of each is that of the integral of the raw DOS (True, ``integration``), or that of a network: the one beside
        the model (``network``, as in the article), a :class:`~petdos_md.physics.networks.Network`, or its file
    :param members: whether to evaluate the ensemble; without it model errors are NaN
    :param keep_members: store the average DOS of every member as ``dos_members``
    :param carriers: count electrons and holes (:func:`petdos_md.physics.carriers.carriers`); every average DOS must have a gap
    :raises SettingError: for choices that do not exist or exclude each other
    """

    reference: str = "fermi"
    align: str = "average"
    error_method: str = "autocorrelation"
    n_electrons: float | None = None
    electronic_temperatures_K: Sequence[float] | str | None = None
    transform: FrameTransform | None = None
    denoise: bool | str | Path | Network = False
    members: bool = True
    keep_members: bool = False
    carriers: bool = False

    def __post_init__(self) -> None:
        _check_choice("reference", self.reference, ("raw", "fermi"))
        _check_choice("align", self.align, ("average", "frames"))
        _check_choice("error_method", self.error_method, ERROR_METHODS)
        if self.align == "frames" and self.reference != "fermi":
            raise SettingError(
                "align='frames' puts the energy zero at the Fermi level of each frame; give reference='fermi' (--reference fermi) with it"
            )
        _check_electrons(self.n_electrons)
        if self.denoise and self.transform is not None:
            raise SettingError(
                "denoise and transform are both given, expected one; a transform may call petdos_md.physics.denoise.Denoise"
            )


@dataclass(frozen=True)
class LevelOptions:
    """What :func:`petdos_md.analysis.levels.frame_levels` reads off the frames.

    :param networks: by target; those beside the model if None
    :param denoise: where the Fermi level for denoising comes from: the integral of the raw DOS (True, ``integration``), the network
        beside the model (``network``), a network or its file
    :param methods: some of :data:`LEVEL_METHODS`
    :param n_electrons: per structure, if the model does not know it or to replace what it knows
    :param members: whether to evaluate the ensemble; without it model errors are NaN
    :param threshold: states/eV/atom below which a DOS is a gap
    :param error_method: ``autocorrelation`` or ``blocking``
    :raises SettingError: for choices that do not exist
    """

    networks: Mapping[str, Network] | None = None
    denoise: str | Path | Network | bool = True
    methods: Sequence[str] = LEVEL_METHODS
    n_electrons: float | None = None
    members: bool = True
    threshold: float = GAP_THRESHOLD
    error_method: str = "autocorrelation"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods) - set(LEVEL_METHODS))
        if unknown or not self.methods:
            raise SettingError(
                f"got the method {unknown[0] if unknown else 'none'!r}, expected some of {', '.join(LEVEL_METHODS)}"
            )
        _check_choice("error_method", self.error_method, ERROR_METHODS)
        _check_electrons(self.n_electrons)


@dataclass(frozen=True)
class ReweightingOptions:
    """What :func:`petdos_md.analysis.mbar.reweighted_estimate` does.

    :param sampled_temperatures_K: use frames of these ensembles only; all if None
    :param burn_in: leave out samples with a smaller step, or ``"auto"``, as in :class:`FrameSelection`
    :param replicas: those of these replicas only; all if None
    :param pressure_GPa: pressure of the ensembles, if the traces do not give it; not needed at constant volume
    :param n_electrons: per structure, if the model does not know it or to replace what it knows
    :param members: whether to evaluate the ensemble; without it model errors are NaN
    """

    sampled_temperatures_K: Sequence[float] | None = None
    burn_in: int | str = 0
    replicas: Sequence[int] | None = None
    pressure_GPa: float | None = None
    n_electrons: float | None = None
    members: bool = True

    def __post_init__(self) -> None:
        _check_electrons(self.n_electrons)

        if self.pressure_GPa is not None and not np.isfinite(self.pressure_GPa):
            raise SettingError(f"pressure_GPa={self.pressure_GPa} given, expected a finite number, GPa")

    @property
    def selection(self) -> FrameSelection:
        """The frames, whose weights are those of Boltzmann distributions."""
        return FrameSelection(self.sampled_temperatures_K, self.burn_in, self.replicas)


class SelectionKeywords(TypedDict, total=False):
    """Fields of :class:`FrameSelection`."""

    temperatures_K: Sequence[float] | None
    burn_in: int | str
    replicas: Sequence[int] | None
    weights: WeightsLike | Sequence[WeightsLike] | None
    steps: tuple[int | None, int | None] | None
    electronic_range_K: tuple[float | None, float | None] | None


class AnalysisKeywords(SelectionKeywords, total=False):
    """Those, and fields of :class:`AnalysisOptions`."""

    reference: str
    align: str
    error_method: str
    n_electrons: float | None
    electronic_temperatures_K: Sequence[float] | str | None
    transform: FrameTransform | None
    denoise: bool | str | Path | Network
    members: bool
    keep_members: bool
    carriers: bool


class LevelKeywords(SelectionKeywords, total=False):
    """Fields of :class:`FrameSelection` and :class:`LevelOptions`."""

    networks: Mapping[str, Network] | None
    denoise: str | Path | Network | bool
    methods: Sequence[str]
    n_electrons: float | None
    members: bool
    threshold: float
    error_method: str


class ReweightingKeywords(TypedDict, total=False):
    """Fields of :class:`ReweightingOptions`."""

    sampled_temperatures_K: Sequence[float] | None
    burn_in: int | str
    replicas: Sequence[int] | None
    pressure_GPa: float | None
    n_electrons: float | None
    members: bool


def split_keywords(function: str, keywords: Mapping[str, Any], *kinds: type) -> list[Any]:
    """One object of each kind, from the keywords that are its fields.

    :param function: for the message
    :raises TypeError: if a keyword belongs to none
    """
    names = [[field.name for field in fields(kind)] for kind in kinds]
    known = [name for of_kind in names for name in of_kind]
    unknown = [name for name in keywords if name not in known]
    if unknown:
        raise TypeError(
            f"{function}() got an unexpected keyword argument {unknown[0]!r}, expected some of {', '.join(known)}"
        )
    return [
        kind(**{k: v for k, v in keywords.items() if k in of_kind}) for kind, of_kind in zip(kinds, names, strict=True)
    ]


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise SettingError(f"{name}={value!r} given, expected one of {', '.join(known)}")


def _check_electrons(n_electrons: float | None) -> None:
    if n_electrons is not None and not 0 < n_electrons < np.inf:
        raise SettingError(f"n_electrons={n_electrons} given, expected a positive number, that of the whole structure")
