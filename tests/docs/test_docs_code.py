"""The code of README and pages runs as it stands there, shortened only in the number of steps, and says nothing that a reader cannot use."""

from __future__ import annotations

import json
import lzma
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import ase.build
import numpy as np
import pytest
import zarr
from ase.io import write

import petdos_md as pm
from petdos_md.cli.main import make_parser

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PAGES = sorted(
    p.relative_to(ROOT)
    for p in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("README.md"))
    if not {"_build", "_gallery", "outputs"} & set(p.parts)
)
BOLTZMANN = 8.617333262e-5


def blocks(page: str | Path, language: str) -> list[str]:
    """The code blocks of a page in a language; ``""`` for those that name none."""
    found = re.findall(r"^```(\S*)[^\n]*\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    return [text for named, text in found if named == language]


def block(page: str, language: str, word: str) -> str:
    """The one block that holds a word."""
    (found,) = [b for b in blocks(page, language) if word in b]
    return found


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Each first word must be there, or this tests something that nobody reads."""
    for old, new in pairs:
        assert old in text, f"{old!r} is not in\n{text}"
        text = text.replace(old, new)
    return text


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Standard output; whatever reaches standard error is a fault."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stderr == "", done.stderr
    return done.stdout


def python(code: str, folder: Path) -> str:
    (folder / "block.py").write_text(code)
    return run([sys.executable, "block.py"], folder)


@cache
def sommerfeld() -> float:
    """C_el / T of aluminium per atom (k_B/K), from the model's own DOS of the crystal."""
    model = pm.DOSModel.load("almgsi-lda")
    atoms = ase.build.bulk("Al", a=4.05, cubic=True)
    energies, dos = model.grid.energies, model.dos(atoms)
    at_level = np.interp(pm.thermo.fermi_level(energies, dos, 12.0), energies, dos)
    return float(np.pi**2 / 3 * BOLTZMANN * at_level / len(atoms))


def petdos_commands() -> list[tuple[str, str]]:
    """Every ``petdos ...`` of a shell block, lines joined, without comments and what comes before or after it."""
    found = []
    for page in PAGES:
        for language in ("sh", "bash"):
            for text in blocks(page, language):
                for line in text.replace("\\\n", " ").splitlines():
                    for part in re.split(r"&&|\||(?<=\s)&(?=\s|$)|;", line.split(" #")[0]):
                        words = re.sub(r"\$\(.*?\)", "X", part).strip()
                        if words.startswith("petdos "):
                            found.append((str(page), words))
    return found


COMMANDS = petdos_commands()


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{p}:{c[:60]}" for p, c in COMMANDS])
def test_commands_are_understood(page: str, command: str) -> None:
    """Every command and option exists; argparse exits if not."""
    words = shlex.split(command.replace(" ...", ""))[1:]
    assert make_parser().parse_args(words).command == words[0]


def test_options_in_the_text() -> None:
    """Options that the text of a page names belong to some command or script."""
    known = set()
    for action in make_parser()._actions:
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                known |= {o for a in command._actions for o in a.option_strings}
                for inner in command._actions:  # petdos lammps build
                    if isinstance(inner.choices, dict):
                        known |= {o for c in inner.choices.values() for a in c._actions for o in a.option_strings}
    scripts = [*ROOT.glob("examples/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), ROOT / "docs" / "gallery.py"]
    known |= {o for s in scripts for o in re.findall(r"add_argument\(\s*\"(--[\w-]+)", s.read_text())}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
        named = {
            o
            for span in re.findall(r"`((?!#SBATCH|ase )[^`\n]*)`", text)
            for o in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)
        }
        assert named <= known, f"{page}: {', '.join(sorted(named - known))}: no command has that"


@pytest.mark.parametrize("script", sorted({m for p in PAGES for b in (*blocks(p, "sh"), *blocks(p, "bash"))
                                           for m in re.findall(r"python ([\w/]+\.py)", b)}))  # fmt: skip
def test_scripts_are_there(script: str) -> None:
    folders = [ROOT, ROOT / "examples" / "training", ROOT / "examples" / "ipi", ROOT / "examples" / "cases"]
    assert any((folder / script).exists() for folder in folders), script


def test_readme_python(tmp_path: Path) -> None:
    """The heat capacity is that of the same model for the perfect crystal, to what atoms at 600 K change."""
    code = replaced(
        block("README.md", "python", "DOSObserver"),
        ("range(0, 2000, 500)", "range(0, 60, 30)"),
        ("dyn.run(500)", "dyn.run(30)"),
        ("done + 500", "done + 30"),
        ("burn_in=500", "burn_in=20"),
    )
    out = python(code, tmp_path)
    assert re.findall(r"^(\d+) steps: 600 K: (\d+) samples", out, re.M) == [("30", "4"), ("60", "7")]
    row = next(line for line in out.splitlines() if line.startswith("600 "))
    heat, error = (float(x) for x in row.rsplit("  ", 1)[1].split("±")[:2])
    assert heat == pytest.approx(600 * sommerfeld(), rel=0.1) and 0 < error < 0.1 * heat


def test_readme_shell(tmp_path: Path) -> None:
    """Both lines of the shell example; the files that its comment names."""
    write(tmp_path / "Al.cif", ase.build.bulk("Al", a=4.05, cubic=True))
    md, analyze, _ = block("README.md", "sh", "petdos md").splitlines()
    assert md == block("docs/quick-start.md", "sh", "petdos md").splitlines()[0]  # one example, told twice
    md = replaced(md, ("--steps 5000 --every 10", "--steps 20 --every 5"))
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", f"{md}\n{analyze}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"warn", done.stderr, re.I), done.stderr
    for name in analyze.partition("#")[2].replace(",", " ").split():
        assert (tmp_path / "results" / name).stat().st_size > 100, name
    rows = (tmp_path / "results" / "thermo.csv").read_text().splitlines()
    column = rows[0].split(",").index("heat_capacity (eV/K)")
    for row in rows[1:]:
        temperature, heat = float(row.split(",")[0]), float(row.split(",")[column])
        assert heat / 4 / BOLTZMANN == pytest.approx(temperature * sommerfeld(), rel=0.1)
    table = re.findall(r"^\| `(.*?)`(?:, `(.*?)`)? \|", (ROOT / "docs" / "quick-start.md").read_text(), re.M)
    assert {n for names in table for n in names if n} == {f.name for f in (tmp_path / "results").iterdir()}


def test_quick_start_python(tmp_path: Path) -> None:
    code = block("docs/quick-start.md", "python", "model.evaluate") + "print(level, heat)\n"
    level, heat = (float(x) for x in python(code, tmp_path).split())
    assert heat / 4 / BOLTZMANN == pytest.approx(300 * sommerfeld(), rel=0.02)
    model = pm.DOSModel.load("almgsi-lda")
    dos, energies = model.dos(ase.build.bulk("Al", a=4.05, cubic=True)), model.grid.energies
    fine = np.linspace(energies[0], level, 200_001)  # the electrons below the level, by brute force
    assert np.trapezoid(np.interp(fine, energies, dos), fine) == pytest.approx(12.0, abs=1e-3)


def test_bands(tmp_path: Path) -> None:
    """The three ways to a DOS of electronic-structure.md, on what ASE and the package read of a run of pw.x."""
    xml = lzma.decompress((ROOT / "tests" / "data" / "al.xml.xz").read_bytes())
    (tmp_path / "pwscf.save").mkdir()
    (tmp_path / "pwscf.save" / "data-file-schema.xml").write_bytes(xml)
    (tmp_path / "al.pwo").write_bytes(lzma.decompress((ROOT / "tests" / "data" / "al.pwo.xz").read_bytes()))
    given = """
import ase.io, numpy as np, petdos_md as pm
model = pm.DOSModel.load("almgsi-lda")
atoms = ase.io.read("al.pwo")
eigenvalues, weights = np.array([[1.0, 3.0], [2.0, 4.0]]), np.array([1.0, 1.0])
"""
    code = block("docs/electronic-structure.md", "python", "from_qe_xml")
    end = "print(dos[np.searchsorted(model.grid.energies, 2.0)], np.isnan(dos[-1]))\n"
    value, missing = python(given + code + end, tmp_path).split()
    gauss = [np.exp(-((2.0 - e) ** 2) / 2 / 0.09) / 0.3 / np.sqrt(2 * np.pi) for e in (1.0, 3.0, 2.0, 4.0)]
    assert float(value) == pytest.approx(sum(gauss), rel=1e-3) and missing == "True"


def lammps_deck(steps: int) -> str:
    return replaced(block("docs/lammps.md", "", "create_box"), ("run             20000", f"run             {steps}"))


@pytest.mark.usefixtures("lammps_plugin")
@pytest.mark.parametrize("ranks", [0, 2])
def test_lammps_deck(tmp_path: Path, ranks: int) -> None:
    """As on the page; the Fermi level in LAMMPS's own table is that of the trace, and of Python."""
    (tmp_path / "in.deck").write_text(lammps_deck(100))
    start = ["mpirun", "-np", str(ranks)] if ranks else []
    printed = run([*start, "lmp", "-in", "in.deck"], tmp_path, OMP_NUM_THREADS="1")
    levels = {int(m[1]): float(m[2]) for m in re.finditer(r"^ +(\d+)(?: +\S+){2} +(\S+) *$", printed, re.M)}
    trace, model = pm.Trace.open(tmp_path / "run.zarr", "r"), pm.DOSModel.load("almgsi-lda")
    assert trace.step.tolist() == [0, 50, 100] and set(trace.temperature_K) == {900.0}
    for sample in trace:
        level = pm.thermo.fermi_level(model.grid.energies, model.dos(sample), 768.0)
        if sample.step in levels:
            assert levels[sample.step] == pytest.approx(float(level), abs=2e-5)
    assert {0, 100} <= set(levels)
    crystal = model.dos(ase.build.bulk("Al", a=4.05, cubic=True) * (4, 4, 4))
    assert levels[0] == pytest.approx(float(pm.thermo.fermi_level(model.grid.energies, crystal, 768.0)), abs=2e-5)


def test_lammps_python(tmp_path: Path) -> None:
    """`in.aluminium` is what the comment says: the deck up to the thermostat."""
    deck = lammps_deck(100)
    (tmp_path / "in.aluminium").write_text(deck[: deck.index("\ncompute")])
    code = replaced(
        block("docs/lammps.md", "python", "LAMMPSObserver"), ("observer.run(20000)", "observer.run(100)"),
        ("lammps.lammps()", 'lammps.lammps(cmdargs=["-screen", "none"])'),
    )  # fmt: skip
    heat = float(python(code + "print(result.heat_capacity.item())\n", tmp_path).splitlines()[-1])
    assert heat / 256 / BOLTZMANN == pytest.approx(900 * sommerfeld(), rel=0.1)


IPI = """<simulation verbosity='quiet' safe_stride='10'>
  <output prefix='run'> <properties stride='5' filename='out'> [step, volume{angstrom3}] </properties> </output>
  <total_steps> 20 </total_steps>
  <ffdirect name='potential'> <pes> custom </pes> <pes_path> petdos_potential.py </pes_path>
    <parameters> {model: almgsi-lda, template: init.xyz} </parameters> </ffdirect>
  MORE
  <system>
    <initialize nbeads='1'> <file mode='ase'> init.xyz </file> <velocities mode='thermal' units='kelvin'> 600 </velocities> </initialize>
    <forces> <force forcefield='potential'/> </forces>
    <ensemble> <temperature units='kelvin'> 600 </temperature> </ensemble>
    <motion mode='dynamics'> <dynamics mode='nvt'> <timestep units='femtosecond'> 2 </timestep>
      <thermostat mode='svr'> <tau units='femtosecond'> 100 </tau> </thermostat> </dynamics> </motion>
  </system>
</simulation>
"""


def ipi_folder(folder: Path, more: str = "") -> None:
    write(folder / "init.xyz", ase.build.bulk("Al", a=4.05, cubic=True))
    drivers = Path(run(["petdos", "ipi", "--drivers"], folder).strip())
    (folder / "petdos_potential.py").write_text((drivers / "petdos_potential.py").read_text())
    (folder / "input.xml").write_text(IPI.replace("MORE", more))


def check_ipi(folder: Path, steps: list[int]) -> None:
    trace = pm.Trace.open(folder / "run.zarr", "r")
    assert trace.step.tolist() == steps and set(trace.temperature_K) == {600.0}
    heat = pm.analyze(folder / "run.zarr").heat_capacity.item()
    assert heat / 4 / BOLTZMANN == pytest.approx(600 * sommerfeld(), rel=0.1)


def test_ipi_snippet(tmp_path: Path) -> None:
    """The element on the page is what the command on the page prints, but for the folder; stock i-PI runs with it."""
    shown = block("docs/ipi.md", "xml", "petdos_observer")
    command = re.search(r"`(petdos ipi --snippet .*?)`", (ROOT / "docs" / "ipi.md").read_text())
    assert command
    printed = run(shlex.split(command[1]), tmp_path)
    assert re.sub(r"(?<=<pes_path> )\S*/(?=petdos_observer)", "", printed) == re.sub(
        r"\.\.\./petdos_md/ipi_drivers/", "", shown
    )
    ipi_folder(tmp_path, printed.replace("every: 50", "every: 5"))
    run(["i-pi", "input.xml"], tmp_path)
    check_ipi(tmp_path, [5, 10, 15, 20])


def test_ipi_python(tmp_path: Path) -> None:
    ipi_folder(tmp_path)
    code = replaced(
        block("docs/ipi.md", "python", "InteractiveSimulation"), ("every=50", "every=5"), ("run(1000)", "run(20)")
    )
    python(code, tmp_path)
    check_ipi(tmp_path, [5, 10, 15, 20])


def test_array_of_the_trace_format(tmp_path: Path) -> None:
    """The metadata on the page are those of a trace with as many samples."""
    (text,) = blocks("docs/trace-format.md", "json")
    model = pm.DOSModel.load("almgsi-lda")
    sample = model.evaluate(ase.build.bulk("Al", a=4.05))
    with pm.Trace.open(tmp_path / "run.zarr", model=model, fsync=False) as trace:
        for step in range(130):
            trace.append(replace(sample, step=step, temperature_K=300.0))
    assert json.loads((tmp_path / "run.zarr" / "temperature_K" / "zarr.json").read_text()) == json.loads(text)
    line = re.search(r"`(zarr\.open_group\(.*?\]\[:\])`", (ROOT / "docs" / "trace-format.md").read_text())
    assert line
    code = line[1].replace("run.zarr", str(tmp_path / "run.zarr"))
    np.testing.assert_array_equal(eval(code, {"zarr": zarr}), np.stack([sample.features] * 130))
