"""Published interatomic potentials of the UPET family (PET-MAD, PET-OMat, ...) by name, as upet distributes them.

>>> parse("pet-mad-s-v1.0.2")
UpetName(model='pet-mad', size='s', version='1.0.2')
>>> path = cached_potential("pet-mad-s")             # fetched and exported at first use      # doctest: +SKIP

DOI 10.1038/s41467-025-65662-7 (PET-MAD), arXiv:2601.16195 (UPET). A name without a version is the newest one that was fetched before, else the newest
there is; the file that is returned has its version in its name.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import ModelError
from ..base.quiet import quiet
from .hub import cache_root, download, first_line, made_once, report_errors_once

REPOSITORY = "lab-cosmo/upet"
SIZES = ["s", "m", "xs", "l", "xl"]
"""In upet's order of preference for a name without a size."""
_NAME = re.compile(r"(?P<model>pet-(?!mad-dos)\w+)(-(?P<size>xs|s|m|l|xl))?(-v?(?P<version>\d+\.\d+\.\d+))?")


@dataclass(frozen=True)
class UpetName:
    """Parts of a name; what is left out is None, and upet's default.

    :param size: xs, s, m, l or xl
    """

    model: str
    size: str | None
    version: str | None


def parse(name: str) -> UpetName | None:
    """The parts of ``pet-MODEL[-SIZE][-vVERSION]``; None for what is no such name."""
    match = _NAME.fullmatch(name)
    return None if match is None else UpetName(match["model"], match["size"], match["version"])


def cached_potential(name: str, cache: str | os.PathLike[str] | None = None, endpoint: str | None = None) -> Path:
    """The exported potential, made at the first call and kept.

    :param name: see :func:`parse`
    :param cache: folder for it; see :func:`petdos_md.models.hub.cache_root`
    :param endpoint: of the Hugging Face Hub, or of a mirror
    :raises ModelError: if there is none of that name, upet is not installed, or it is not there yet and cannot be downloaded
    """
    known = parse(name)
    if known is None:
        raise ModelError(
            f"{name}: no name of upet; expected pet-MODEL-SIZE or pet-MODEL-SIZE-vVERSION, as in pet-mad-s"
        )
    root = cache_root(cache)
    if known.version is None and (there := _newest(root, known)):
        return there
    known = _resolve(name, known)
    stem = f"{known.model}-{known.size}-v{known.version}"
    return made_once(root / stem, f"{stem}.pt", lambda path: _export(stem, path, endpoint), stem)


def _newest(root: Path, known: UpetName) -> Path | None:
    """Of the versions that were fetched before; of all sizes, the one that was made last."""
    found = []
    for path in root.glob(f"{known.model}-*/*.pt"):
        other = parse(path.stem)
        if other and other.version and other.model == known.model and known.size in (None, other.size):
            found.append((path.stat().st_mtime if known.size is None else 0, _key(other.version), path))
    return max(found)[-1] if found else None


def _key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _resolve(name: str, known: UpetName) -> UpetName:
    """Size and version, by upet's rules where they are left out."""
    if known.size and known.version:
        return known
    try:
        with quiet():
            from upet import list_upet
    except ImportError as error:
        raise ModelError(_missing(name, error)) from None
    report_errors_once()
    try:
        listed = list_upet(model=known.model, print_summary=False)
    except Exception as error:  # of upet, the client of the Hub, or the network
        raise ModelError(f"{name} cannot be found on {REPOSITORY} ({first_line(error)}); {_by_hand(name)}") from None
    sizes = [known.size] if known.size else SIZES
    wanted = [(sizes.index(a["size"]), a["version"]) for a in listed if a["size"] in sizes]
    wanted = [(size, version) for size, version in wanted if known.version in (None, version)]
    if not wanted:
        there = ", ".join(f"{a['size']}-v{a['version']}" for a in listed if a["size"] in SIZES) or "none"
        raise ModelError(f"{name} cannot be found on {REPOSITORY} (of {known.model}: {there}); {_by_hand(name)}")
    size, version = min(wanted, key=lambda found: (found[0], [-part for part in _key(found[1])]))
    return UpetName(known.model, sizes[size], version)


def _export(stem: str, path: Path, endpoint: str | None) -> None:
    try:
        with quiet():
            from upet import save_upet
    except ImportError as error:
        raise ModelError(_missing(stem, error)) from None
    checkpoint = download(REPOSITORY, f"models/{stem}.ckpt", _by_hand(stem), endpoint)
    try:
        with quiet():
            save_upet(checkpoint_path=str(checkpoint), output=str(path))
    except Exception as error:  # of metatrain, for a checkpoint that is too new or none at all
        raise ModelError(
            f"{checkpoint}: upet cannot export it ({first_line(error)}); try `pip install -U upet`"
        ) from None


def _missing(name: str, error: ImportError) -> str:
    return f"{name} needs {error.name}: pip install -U upet; or give the path of a metatomic model (.pt)"


def _by_hand(name: str) -> str:
    file = name if re.search(r"\d+\.\d+\.\d+$", name) else f"{name}-vVERSION"
    return (
        f"on a machine with a network, get {file}.ckpt from https://huggingface.co/{REPOSITORY}/tree/main/models, and here "
        f"`petdos export {file}.ckpt -o {name}.pt`, then --potential {name}.pt"
    )
