"""Bad input to every command and engine: does each end with one line that helps, without a traceback, and soon?

Commands run in a process of their own, forked from one that has imported them; LAMMPS is the real ``lmp``, under ``mpirun`` for two
ranks. Inputs are files of a folder that :func:`make_files` fills: a good structure, model, trace and input of i-PI, and spoilt copies.
"""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.build
import ase.io
import numpy as np
from cases import COMMANDS, DECK, DECKS, HOOKS, PYTHON
from runs import BIN, ENVIRONMENT, IpiRun

TIMEOUT_S = 120.0


def check_inputs(folder: Path) -> Iterator[dict[str, Any]]:
    """One record for every bad input: what was run, the exit status, the message, and what is wrong with it ('' if nothing)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_files(folder)
    for text in COMMANDS:
        yield judged("command line", f"petdos {text}", *forked(lambda text=text: petdos(text), folder))
    for name, code in PYTHON.items():
        yield judged("Python, ASE", name, *forked(lambda code=code: python(code), folder), python=True)
    for settings in HOOKS:
        hook = f"<ffdirect name='petdos'><pes> custom </pes><pes_path> petdos_observer.py </pes_path><parameters> {{{settings}}} </parameters></ffdirect>"
        (folder / "hooked.xml").write_text(ipi_input(folder, hook))
        yield judged("i-PI", f"i-pi input.xml with {settings}", *forked(stock_ipi, folder), python=True)
    for ranks, decks in ((1, DECKS), (2, DECKS[::4])):
        for lines in decks:
            (folder / "in.bad").write_text(DECK + lines + "\nrun 0\n")
            label = lines.strip().splitlines()[-1]
            yield judged(f"LAMMPS, {ranks} rank{'s' * (ranks > 1)}", label, *lammps(folder, ranks), lammps=True)


def judged(
    engine: str, what: str, status: int | None, said: str, python: bool = False, lammps: bool = False
) -> dict[str, Any]:
    """A record. Of LAMMPS the line with ERROR counts; of Python and of stock i-PI, which show where an exception came from, the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if ("ERROR: " if lammps else "error: ") in line]
    message = (lines if python else errors or lines or [""])[-1] if lines else ""
    problem = ""
    if status is None:
        problem = "hangs"
    elif status == 0:
        problem = "accepted"
    elif not message:
        problem = "no message"
    elif not python and "Traceback" in said:
        problem = "traceback"
    elif not python and len(errors) != 1:
        problem = f"{len(errors)} lines"
    return {
        "kind": "inputs",
        "engine": engine,
        "input": what,
        "status": status,
        "message": message,
        "problem": problem,
    }


def petdos(text: str) -> int:
    from petdos_md.cli import main as cli

    return cli.main(text.split())


def python(code: str) -> int:
    exec(code, {})
    return 0


def stock_ipi() -> int:
    sys.argv = ["i-pi", "hooked.xml"]
    runpy.run_path(str(BIN / "i-pi"), run_name="__main__")
    return 0


def forked(call: Callable[[], int], folder: Path) -> tuple[int | None, str]:
    """Exit status (None: had to be killed) and all that was said by a call in a process of its own."""
    said = folder / "said"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            with open(said, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = call()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException as error:  # as the interpreter shows it, its last line
            print(f"Traceback\n{type(error).__name__}: {error}", flush=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for _ in range(round(TIMEOUT_S / 0.01)):  # not by the clock: a machine that sleeps is no hang
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), said.read_text(errors="replace")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, said.read_text(errors="replace")


def lammps(folder: Path, ranks: int) -> tuple[int | None, str]:
    command = [str(BIN / "lmp"), "-in", "in.bad", "-log", "none"]
    if ranks > 1:
        command = [str(BIN / "mpirun"), "-np", str(ranks), *command]
    try:
        done = subprocess.run(
            command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def make_files(folder: Path) -> None:
    """The good and the spoilt files that the cases name."""
    from petdos_md.engines.ipi.hook import DRIVERS
    from petdos_md.models.files import MODELS, readout_path

    good = ase.build.bulk("Al", cubic=True)
    ase.io.write(folder / "Al.xyz", good, format="extxyz")
    ase.io.write(folder / "init.xyz", good, format="extxyz")
    ase.io.write(folder / "Cu.xyz", ase.build.bulk("Cu", cubic=True), format="extxyz")
    ase.io.write(folder / "cluster.xyz", ase.Atoms("Al2", [[0, 0, 0], [0, 0, 2.7]]), format="extxyz")
    bad = good.copy()
    bad.positions[1, 0] = np.nan
    ase.io.write(folder / "nan.traj", bad)
    ase.io.write(folder / "empty.traj", ase.Atoms(cell=[4, 4, 4], pbc=True))
    (folder / "bad.xyz").write_text("3\nnonsense\nAl 0 0\n")
    (folder / "text.pt").write_text("not a model")
    (folder / "text.ckpt").write_text("not a checkpoint")
    content = (MODELS / "almgsi-lda.pt").read_bytes()
    (folder / "cut.pt").write_bytes(content[:-1000])
    (folder / "alone.pt").write_bytes(content)
    (folder / "weights.txt").write_text("0 1.0\nx y\n")
    shutil.copy(folder / "Al.xyz", folder / "reference.xyz")  # without a DOS
    for file in DRIVERS.glob("*.py"):
        shutil.copy(file, folder)
    (folder / "input.xml").write_text(ipi_input(folder))
    (folder / "broken.xml").write_text(ipi_input(folder).replace("<prng>", "<prgn>"))
    for path in (MODELS / "almgsi-lda.pt", readout_path(MODELS / "almgsi-lda.pt")):  # without its networks
        shutil.copy(path, folder / path.name.replace("almgsi-lda", "bare"))
    for model, trace in (("almgsi-lda", "run.zarr"), ("bare.pt", "bare.zarr")):
        arguments = f"rerun Al.xyz --dos {model} --temperature 300 -o {trace}"
        status, said = forked(lambda arguments=arguments: petdos(arguments), folder)
        if status != 0:
            raise RuntimeError(said)
    shutil.copytree(folder / "run.zarr", folder / "cut.zarr")
    with open(folder / "cut.zarr" / "features" / "c" / "0" / "0", "r+b") as file:
        file.truncate(100)
    shutil.copytree(folder / "run.zarr", folder / "future.zarr")
    text = (folder / "future.zarr" / "zarr.json").read_text()
    later, n = re.subn(r'("schema_version": ?)\d+', r"\g<1>99", text)
    assert n == 1
    (folder / "future.zarr" / "zarr.json").write_text(later)
    (folder / "mine").mkdir()
    (folder / "mine" / "file").write_text("mine")


def ipi_input(folder: Path, observer: str = "") -> str:
    """An input of i-PI; what an earlier one left of its socket is removed."""
    address = f"faults-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"
    Path(f"/tmp/ipi_{address}").unlink(missing_ok=True)
    return IpiRun.XML.format(steps=4, observer=observer).replace("> faults <", f"> {address} <")


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    mine = [record for record in records if record["kind"] == "inputs"]
    wrong = sum(bool(record["problem"]) for record in mine)
    yield f"{len(mine)} inputs, {wrong} not refused in one line."
    yield ""
    yield "| engine | input | exit | message |"
    yield "|---|---|---|---|"
    for r in mine:
        message, what = (str(r[key]).replace("|", "\\|") for key in ("message", "input"))
        problem = f" **{r['problem']}**" if r["problem"] else ""
        yield f"| {r['engine']} | `{what}` | {r['status']} | {message}{problem} |"
