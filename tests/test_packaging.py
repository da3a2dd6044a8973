"""The wheel: built offline from a copy of the tree, it holds what an installation needs, and asks for no engine but ASE."""

import configparser
import email
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("src", "ipi_drivers", "lammps_plugin", "examples", "docs", "tests", "benchmarks")
FILES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "CHANGELOG.md",
    "CITATION.cff",
    "Makefile",
    "constraints.txt",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources: a build leaves files, and must see none of an earlier one."""
    copy = tmp_path_factory.mktemp("tree")
    skip = shutil.ignore_patterns(
        "outputs", "work", "__pycache__", "*.egg-info", "_build", "_gallery", "*.so", "*.zarr", "checkpoints"
    )
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=skip)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(tree, kind):
    hook = f"import os; os.makedirs('dist', exist_ok=True); from setuptools import build_meta; build_meta.build_{kind}('dist')"
    done = subprocess.run([sys.executable, "-c", hook], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (tree / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tree):
    with zipfile.ZipFile(build(tree, "wheel")) as opened:
        yield opened


def in_wheel(wheel, name):
    (path,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


@pytest.mark.parametrize(
    ("folder", "inside"),
    [
        ("src/petdos_md", "petdos_md"),
        ("ipi_drivers", "petdos_md/ipi_drivers"),
        ("lammps_plugin", "petdos_md/lammps_plugin"),
    ],
)
def test_files_of_the_tree(wheel, tree, folder, inside):
    """Every file that git keeps in the three folders, byte for byte."""
    listed = subprocess.run(
        ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    kept = [f for f in listed if (tree / f).exists()] or pytest.skip(
        "not a git clone: what belongs to the sources is not known"
    )
    inside_folder = {n for n in wheel.namelist() if n.startswith(f"{inside}/")}
    for f in kept:
        name = f"{inside}/{Path(f).relative_to(folder)}"
        assert name in inside_folder and wheel.read(name) == (tree / f).read_bytes(), name


def test_what_must_be_inside(wheel):
    names = set(wheel.namelist())
    for name in (
        "petdos_md/models/shipped/almgsi-lda.pt",
        "petdos_md/models/shipped/almgsi-lda.readout.safetensors",
        "petdos_md/models/shipped/trio-pbesol.pt",
        "petdos_md/models/shipped/trio-pbesol.readout.safetensors",
        "petdos_md/models/shipped/trio-pbesol.fermi_level.safetensors",
        "petdos_md/models/shipped/trio-pbesol.gap.safetensors",
        "petdos_md/models/shipped/trio-pbesol.dos_at_fermi_level.safetensors",
        "petdos_md/py.typed",
        "petdos_md/ipi_drivers/petdos_observer.py",
        "petdos_md/ipi_drivers/petdos_potential.py",
        "petdos_md/ipi_drivers/petdos_features.py",
        "petdos_md/ipi_drivers/petdos_electrons.py",
        "petdos_md/lammps_plugin/LICENSE",
    ):
        assert name in names, name
    top = {n.split("/")[0] for n in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {
        "petdos_md"
    }  # no tests, docs or examples beside the package
    assert not [n for n in names if n.endswith((".so", ".pyc", ".log"))]


def test_licences(wheel):
    metadata = email.message_from_string(in_wheel(wheel, "METADATA"))
    assert metadata["License-Expression"] == "BSD-3-Clause AND GPL-2.0-only"
    assert set(metadata.get_all("License-File")) == {"LICENSE", "lammps_plugin/LICENSE"}
    assert in_wheel(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert in_wheel(wheel, "licenses/lammps_plugin/LICENSE") == (ROOT / "lammps_plugin" / "LICENSE").read_text()


def test_entry_points(wheel):
    found = configparser.ConfigParser()
    found.read_string(in_wheel(wheel, "entry_points.txt"))
    assert dict(found["console_scripts"]) == {"petdos": "petdos_md.cli.main:main"}
    assert dict(found["lammps.plugins"]) == {"petdos": "petdos_md.engines.lammps.plugin:find_plugin"}


def test_requirements(wheel):
    """Without an extra: no engine but ASE, nothing for training or documentation. Engines come with the extra of their name."""
    metadata = email.message_from_string(in_wheel(wheel, "METADATA"))
    required = [r.replace(" ", "") for r in metadata.get_all("Requires-Dist")]

    def names(extra):
        chosen = [r for r in required if (f'extra=="{extra}"' in r if extra else "extra==" not in r)]
        return {re.split(r"[^A-Za-z0-9_.-]", r)[0].lower() for r in chosen}

    base = names(None)
    assert "ase" in base and "torch" in base
    assert "zarr" not in base  # read by what users have, written by ourselves
    engines_and_tools = {
        "lammps",
        "mpich",
        "ipi",
        "pymbar",
        "metatrain",
        "upet",
        "qeschema",
        "sphinx",
        "pytest",
        "gpaw",
        "openmm",
    }
    assert not base & engines_and_tools
    assert names("lammps") == {"lammps", "mpich"}
    assert names("ipi") == {"ipi", "pymbar"}
    assert names("train") == {"metatrain"}
    assert names("trajectories") == {"mdanalysis"}
    assert names("cases") == {"chgnet"}
    assert set(metadata.get_all("Provides-Extra")) == {
        "train",
        "qe",
        "lammps",
        "ipi",
        "trajectories",
        "cases",
        "docs",
        "dev",
    }


def test_tested_versions_fit_the_requirements():
    """constraints.txt names a version of everything that any extra asks for, within what is asked for."""
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {
        name.lower().replace("_", "-"): version
        for name, version in (line.split("==") for line in lines if line and not line.startswith("#"))
    }
    asked = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    for text in asked:
        requirement = requirements.Requirement(text)
        if requirement.name != project["name"]:
            version = tested.get(requirement.name.lower().replace("_", "-"))
            assert version is not None and requirement.specifier.contains(version), f"{text}: tested with {version}"


def test_every_package_is_inside(wheel):
    """Each folder with modules, and the data of each shipped model."""
    names = set(wheel.namelist())
    for path in (ROOT / "src" / "petdos_md").rglob("*"):
        if path.suffix in (".py", ".pt", ".safetensors"):
            assert str(path.relative_to(ROOT / "src")) in names, path


def test_lowest_versions_are_within_the_requirements():
    """Of every dependency but torch, as another parser reads the same file."""
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ("train", "ipi")
    lines = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "lowest.py"), *extras], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lowest = dict(line.split("==") for line in lines)
    asked = project["dependencies"] + [r for extra in extras for r in project["optional-dependencies"][extra]]
    for requirement in map(requirements.Requirement, asked):
        if requirement.name != "torch":
            version = lowest.pop(requirement.name)
            assert requirement.specifier.contains(version)
            assert any(s.operator in (">=", "==") and s.version == version for s in requirement.specifier)
    assert not lowest


def test_source_distribution(tree):
    """All that is needed to build, test and document; nothing that was made by running it."""
    (tree / "examples" / "outputs").mkdir()
    (tree / "examples" / "outputs" / "left.png").write_bytes(b"made")
    (tree / "docs" / "_build").mkdir()
    (tree / "docs" / "_build" / "index.html").write_text("made")
    with tarfile.open(build(tree, "sdist")) as opened:
        names = {n.partition("/")[2] for n in opened.getnames()}
    for name in (*FILES, "src/petdos_md/models/shipped/almgsi-lda.pt", "tests/conftest.py", "tests/test_packaging.py", "docs/conf.py",
                 "docs/gallery.py", "examples/01_observe.py", "examples/training/data/almgsi-lda.xyz.xz", "lammps_plugin/LICENSE",
                 "ipi_drivers/petdos_observer.py"):  # fmt: skip
        assert name in names, name
    assert not [n for n in names if "outputs/" in n or "_build/" in n or n.endswith((".pyc", ".so"))]


def test_recorded_versions_are_of_what_is_installed():
    """A result names the versions of packages that every installation has: those that the project requires without extras."""
    from petdos_md.analysis.dataset import _PACKAGES

    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {requirements.Requirement(text).name.lower() for text in project["dependencies"]}
    assert set(_PACKAGES) <= {project["name"], *required}
