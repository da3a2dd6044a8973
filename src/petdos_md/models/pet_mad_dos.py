"""PET-MAD-DOS, the published universal model (How et al., DOI 10.1039/D5DD00557D), as a model of this package.

>>> report = export_pet_mad_dos("pet-mad-dos.pt")                  # doctest: +SKIP
>>> model = DOSModel.load("pet-mad-dos.pt")                        # doctest: +SKIP
>>> model = DOSModel.load("pet-mad-dos")               # the same, fetched and exported at first use      # doctest: +SKIP

Downloads checkpoint and networks from the Hugging Face Hub (cached by huggingface_hub), or takes them from a folder, exports
them (:mod:`petdos_md.models.export`), and puts the networks for Fermi level and gap beside it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import ModelError
from ..physics.networks import Network, network_path
from .export import ExportReport, export_model
from .hub import cache_root, download, made_once
from .loading import PET_MAD_GRID
from .model import DOSModel

NAME = "pet-mad-dos"
REPOSITORY = "lab-cosmo/pet-mad-dos"
FILES = {
    "checkpoint": "models/pet-mad-dos-v1.0.ckpt",
    "fermi_level": "models/fermi-model.pt",
    "gap": "models/bandgap-model.pt",
}
"""Files in the repository; the checkpoint is a pickle that can run code, so get it from its authors only."""

_TABLE = (
    "H=1 He=2 Li=3 Be=4 B=3 C=4 N=5 O=6 F=7 Ne=8 Na=9 Mg=2 Al=3 Si=4 P=5 S=6 Cl=7 Ar=8 K=9 Ca=10 Sc=11 Ti=12 V=13 "
    "Cr=14 Mn=15 Fe=16 Co=17 Ni=18 Cu=11 Zn=20 Ga=13 Ge=14 As=5 Se=6 Br=7 Kr=8 Rb=9 Sr=10 Y=11 Zr=12 Nb=13 Mo=14 "
    "Tc=15 Ru=16 Rh=17 Pd=18 Ag=19 Cd=12 In=13 Sn=14 Sb=15 Te=6 I=7 Xe=18 Cs=9 Ba=10 La=11 Ce=12 Pr=13 Nd=14 Pm=15 "
    "Sm=16 Eu=17 Gd=18 Tb=19 Dy=20 Ho=21 Er=22 Tm=23 Yb=24 Lu=25 Hf=12 Ta=13 W=14 Re=15 Os=16 Ir=15 Pt=16 Au=19 Hg=20 "
    "Tl=13 Pb=14 Bi=15 Po=16 Rn=18 "
)
ELECTRONS = {symbol: float(number) for symbol, number in (entry.split("=") for entry in _TABLE.split())}
"""Valence electrons of the pseudopotentials of the training data, as upet 0.3.1 has them."""


@dataclass(frozen=True)
class PetMadDosReport:
    """What :func:`export_pet_mad_dos` did.

    :param hashes: SHA-256 of the files that were used, by path
    :param networks: files of the networks that were written
    """

    export: ExportReport
    hashes: dict[Path, str]
    networks: list[Path]


def export_pet_mad_dos(
    output: str | os.PathLike[str] = f"{NAME}.pt",
    *,
    files: str | os.PathLike[str] | None = None,
    llpr: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> PetMadDosReport:
    """Download, check and export PET-MAD-DOS.

    :param output: the backbone; readout and networks go beside it
    :param files: a folder with the files of :data:`FILES` (without ``models/``); nothing is downloaded then
    :param llpr: an LLPR checkpoint of the same network, if the checkpoint itself has no ensemble
    :param endpoint: of the Hugging Face Hub, or of a mirror
    :raises ModelError: if a file is not there and cannot be downloaded (saying which to put where), or is not what it should be
    """
    found = fetch(files, endpoint)
    hashes = {path: sha256(path) for path in found.values()}
    networks = {target: Network.load(found[target], PET_MAD_GRID, target) for target in ("fermi_level", "gap")}
    report = export_model(
        found["checkpoint"],
        Path(output),
        llpr=None if llpr is None else Path(llpr),
        grid_start=PET_MAD_GRID.start,
        grid_step=PET_MAD_GRID.step,
        electrons=ELECTRONS,
        name=NAME,
        description="PET-MAD-DOS v1.0, a universal model of the electronic density of states, DOI 10.1039/D5DD00557D",
    )
    if report.n_channels != PET_MAD_GRID.n:
        raise ModelError(f"{found['checkpoint']}: has {report.n_channels} energies, PET-MAD-DOS has {PET_MAD_GRID.n}")
    fingerprint = DOSModel.load(report.backbone, "cpu").info.fingerprint
    written = []
    for target, network in networks.items():
        network.model = fingerprint
        written.append(network_path(report.backbone, target))
        network.save(written[-1])
    return PetMadDosReport(report, hashes, written)


def cached_model(cache: str | os.PathLike[str] | None = None, endpoint: str | None = None) -> Path:
    """The exported model, made at the first call and kept; what ``DOSModel.load("pet-mad-dos")`` loads.

    :param cache: folder for it; by default ``petdos-md`` in ``$XDG_CACHE_HOME`` or ``~/.cache``
    :param endpoint: as for :func:`export_pet_mad_dos`
    :raises ModelError: if it is not there yet and cannot be downloaded or exported
    """
    folder = cache_root(cache) / Path(FILES["checkpoint"]).stem
    return made_once(folder, f"{NAME}.pt", lambda path: export_pet_mad_dos(path, endpoint=endpoint), NAME)


def fetch(files: str | os.PathLike[str] | None = None, endpoint: str | None = None) -> dict[str, Path]:
    """Paths of the files of :data:`FILES`, from a folder or from the Hugging Face Hub and its cache.

    :raises ModelError: if one is missing
    """
    if files is not None:
        return {key: _in_folder(Path(files), name) for key, name in FILES.items()}
    return {key: download(REPOSITORY, name, _by_hand(), endpoint) for key, name in FILES.items()}


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _in_folder(folder: Path, name: str) -> Path:
    for path in (folder / Path(name).name, folder / name):
        if path.is_file():
            return path
    raise ModelError(f"{folder}: has no {Path(name).name}; {_by_hand()}")


def _by_hand() -> str:
    names = ", ".join(Path(name).name for name in FILES.values())
    return (
        f"on a machine with a network, get {names} from https://huggingface.co/{REPOSITORY}/tree/main/models, put them into "
        f"a folder, and give it: petdos export {NAME} --files FOLDER"
    )
