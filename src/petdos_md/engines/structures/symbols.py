"""Elements from what stands in the column of elements of a file.

>>> element("Al").symbol, element("al").symbol, element("Na+").symbol, element("Fe2").symbol, element("18O").symbol
('Al', 'Al', 'Na', 'Fe', 'O')
>>> element("D")                                                                # an isotope: its mass counts, too
Element(symbol='H', mass=2.014)
>>> element("2", parse_species("Al,Mg")).symbol, element("A", parse_species("A=Si")).symbol
('Mg', 'Si')
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ase import Atoms
from ase.data import atomic_numbers

from ...base.errors import SettingError

ISOTOPES = {"D": ("H", 2.014), "T": ("H", 3.016)}
"""Symbols that are no elements: element and mass (u)."""
_LABEL = re.compile(r"\d*([A-Za-z]{1,2})(?:[\d_+(-].*)?")


class Element(NamedTuple):
    """An element, and the mass (u) if it is not the usual one."""

    symbol: str
    mass: float | None = None


def element(label: str, species: Mapping[str, str] | None = None) -> Element:
    """The element of a label: a symbol in any case, perhaps with a number or charge behind it (``Al1``, ``Na+``, ``Fe_up``), an isotope
    (``D``, ``T``, ``18O``), or whatever ``species`` names.

    :param species: label -> symbol
    :raises ValueError: if it is none; says why
    """
    if species is not None and label in species:
        return _known(species[label])
    if re.fullmatch(r"[-+]?\d+", label):
        given = "" if species is None else f" (--species names {', '.join(species)})"
        raise ValueError(f"has type {label} in place of an element{given}; give --species, as in --species Al,Mg")
    match = _LABEL.fullmatch(label)
    found = None if match is None else _known(match[1])
    if found is None or found.symbol not in atomic_numbers or found.symbol == "X":
        raise ValueError(f"has {label!r} in place of an element; write symbols, or name it by --species {label}=Al")
    return found


def elements(labels: Sequence[str], species: Mapping[str, str] | None, where: str) -> list[Element]:
    """The elements of all atoms of a frame.

    :param where: the frame, for messages
    :raises SettingError: if a label is none, or ``species`` names none of the labels
    """
    known: dict[str, Element] = {}
    for i, label in enumerate(labels):
        if label not in known:
            try:
                known[label] = element(label, species)
            except ValueError as error:
                raise SettingError(f"{where}, atom {i + 1}: {error}") from None
    if species is not None and known and not known.keys() & species.keys():
        raise SettingError(f"{where} has elements ({', '.join(known)}), none of which --species names; leave it out")
    return [known[label] for label in labels]


def parse_species(text: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str] | None:
    """``Al,Mg`` (types 1, 2, ...) or ``1=Al,B=Mg`` (by label) as label -> symbol; a list or a dictionary likewise.

    :raises SettingError: if it is something else or no element
    """
    if text is None:
        return None
    if isinstance(text, Mapping):
        found = {str(key): str(value) for key, value in text.items()}
    else:
        words = text.replace(",", " ").split() if isinstance(text, str) else [str(word) for word in text]
        pairs = [word.rpartition("=") for word in words]
        found = {key if sep else str(i): symbol for i, (key, sep, symbol) in enumerate(pairs, 1)}
    for symbol in found.values():
        if symbol in ISOTOPES or (symbol in atomic_numbers and symbol != "X"):
            continue
        raise SettingError(f"got species {text}, but {symbol!r} is no element; expected elements by type, as in Al,Mg")
    if not found:
        raise SettingError(f"got species {text!r}, expected elements by type, as in Al,Mg")
    return found


def set_masses(atoms: Atoms, elements: Sequence[Element]) -> None:
    """Give isotopes their masses."""
    if any(e.mass is not None for e in elements):
        masses = atoms.get_masses()
        atoms.set_masses([m if e.mass is None else e.mass for e, m in zip(elements, masses, strict=True)])


def _known(symbol: str) -> Element:
    for written in (symbol, symbol.capitalize()):
        if written in ISOTOPES:
            return Element(*ISOTOPES[written])
    return Element(symbol.capitalize())
