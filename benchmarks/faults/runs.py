"""The runs that the campaign kills, one for each engine: how each is started, resumed, and known to be over.

>>> run = make_runs()["ase"]            # doctest: +SKIP
>>> run.prepare(folder)                 # doctest: +SKIP
>>> processes = run.start(folder)       # doctest: +SKIP

Every run samples a few atoms of aluminium or an alloy with the shipped model, every process is the one that a user starts, and
resuming is what the documentation says.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import ase.build
import ase.io

BIN = Path(sys.executable).parent
DEATH_S = 60.0
"""Longest time from SIGKILL to death."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore"}

ALLOY = """
units metal
lattice fcc 4.05
region box block 0 2 0 2 0 2
create_box 2 box
create_atoms 1 box
set type 1 type/ratio 2 0.3 77
mass * 26.98
"""
"""32 atoms of Al and Mg for LAMMPS."""


@dataclass
class Processes:
    """What runs now: ``main``, whose end is the end of the run, helpers that may be killed and replaced alone, and those that hang."""

    main: subprocess.Popen[bytes]
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    hung: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def everyone(self) -> list[subprocess.Popen[bytes]]:
        return [self.main, *self.helpers, *self.hung]


class Run:
    """A run that can be killed.

    Attributes: ``n_samples`` at its end; ``tolerance``, the largest relative deviation of features from an undisturbed run that is
    promised (0: bit by bit); ``output``, the trace in its folder; ``up_to``, the newest step to go on from.
    """

    n_samples = 0
    tolerance = 0.0
    output = "run.zarr"
    up_to: float = math.inf

    def prepare(self, folder: Path) -> None:
        """Write what the run needs."""
        raise NotImplementedError

    def start(self, folder: Path) -> Processes:
        """Start it, or go on with it, as the documentation says."""
        raise NotImplementedError

    def resumes_at(self, folder: Path) -> float:
        """The step that it would go on from: samples of later ones, if there are any, are dropped and taken again, as documented."""
        return math.inf

    def is_over(self, folder: Path) -> bool:
        """Whether all steps are done, so that there is nothing to go on with, although it was killed."""
        return False

    def replace(self, folder: Path, processes: Processes, index: int) -> None:
        """Start a helper anew after it was killed."""
        raise NotImplementedError

    def trace(self, folder: Path) -> Path:
        return folder / self.output


class AseRun(Run):
    """``petdos md`` at two temperatures, with EMT as the potential."""

    n_samples = 2 * 201

    def prepare(self, folder: Path) -> None:
        ase.io.write(folder / "Al.xyz", ase.build.bulk("Al", cubic=True))

    def start(self, folder: Path) -> Processes:
        options = (
            "--potential emt --dos almgsi-lda --temperature 300 600 --steps 400 --every 2 --equilibrate 10 --seed 3"
        )
        command = [BIN / "petdos", "md", "Al.xyz", *options.split(), "--checkpoint-every", "20", "--resume"]
        return Processes(started([*command, "-o", self.output], folder))


class LammpsRun(Run):
    """``lmp`` with a MEAM potential; goes on from the newest restart file that was written to its end.

    :param ranks: of MPI; more than one under ``mpirun``
    :param restart: command that writes restart files
    """

    steps, every = 400, 2
    n_samples = steps // every + 1
    tolerance = 1e-5  # LAMMPS itself sums forces in another order after a restart

    SYSTEM = f"{ALLOY}velocity all create 900 4928459\n"
    REST = """
        pair_style meam
        pair_coeff * * library.meam AlS SiS MgS CuS FeS AlSiMgCuFe.meam AlS MgS
        fix md all nvt temp 600 600 0.1
        compute dos all petdos almgsi-lda Al Mg
        fix obs all petdos {every} dos {output} append yes
        {restart}
        run {steps} upto
        """

    def __init__(self, ranks: int, restart: str = "restart 20 at.*") -> None:
        self.ranks, self.restart = ranks, restart

    def prepare(self, folder: Path) -> None:
        pass

    def resumes_at(self, folder: Path) -> float:
        state = newest_whole(folder)
        return -1 if state is None else int(state.suffix[1:])

    def start(self, folder: Path) -> Processes:
        state = newest_whole(folder)
        if state is None:
            shutil.rmtree(
                self.trace(folder), ignore_errors=True
            )  # killed before its first restart file: from the start
        deck = (f"read_restart {state.name}" if state else self.SYSTEM) + self.REST
        (folder / "in.deck").write_text(
            deck.format(steps=self.steps, every=self.every, output=self.output, restart=self.restart)
        )
        command = [BIN / "lmp", "-in", "in.deck", "-log", "none"]
        if self.ranks > 1:
            command = [BIN / "mpirun", "-np", str(self.ranks), *command]
        return Processes(started(command, folder))


RESTART_END = b"LammpS RestartT\0"
"""The last bytes of a restart file of LAMMPS that was written to its end; ``read_restart`` refuses one without."""


def newest_whole(folder: Path) -> Path | None:
    """The newest restart file that was written to its end."""
    found = sorted(folder.glob("at.*"), key=lambda p: int(p.suffix[1:]), reverse=True)
    return next((p for p in found if p.read_bytes().endswith(RESTART_END)), None)


class IpiRun(Run):
    """Stock ``i-pi`` with replica exchange between three temperatures and two socket clients; goes on from its newest state.

    A client that says nothing for ``timeout`` seconds is given up by i-PI, which hands its work to another one.
    """

    steps, every = 120, 2
    n_samples = 3 * steps // every
    tolerance = 1e-6  # a state of i-PI has nine digits

    XML = """<simulation verbosity='low' threading='False' safe_stride='4'>
        <output prefix='run'><checkpoint filename='checkpoint' stride='10' overwrite='False'/></output>
        <total_steps> {steps} </total_steps> <prng><seed> 5 </seed></prng>
        <ffsocket name='clients' mode='unix' pbc='False'> <address> faults </address> <latency> 1e-3 </latency> <timeout> 6 </timeout> </ffsocket>
        {observer}
        <smotion mode='remd'><remd><stride> 4 </stride></remd></smotion>
        <system_template><labels> [INDEX, TEMP] </labels>
        <instance> [0, 400] </instance> <instance> [1, 520] </instance> <instance> [2, 676] </instance>
        <template><system prefix='INDEX'>
        <initialize nbeads='1'><file mode='ase'> init.xyz </file><velocities mode='thermal' units='kelvin'> TEMP </velocities></initialize>
        <forces> <force forcefield='clients'/> </forces>
        <ensemble> <temperature units='kelvin'> TEMP </temperature> </ensemble>
        <motion mode='dynamics'><dynamics mode='nvt'><timestep units='femtosecond'> 2 </timestep>
        <thermostat mode='svr'><tau units='femtosecond'> 50 </tau></thermostat></dynamics></motion>
        </system></template></system_template></simulation>"""

    def prepare(self, folder: Path) -> None:
        from petdos_md.engines.ipi.hook import DRIVERS, snippet

        atoms = ase.build.bulk("Al", cubic=True)
        atoms.rattle(0.05, seed=1)
        ase.io.write(folder / "init.xyz", atoms, format="extxyz")
        for file in DRIVERS.glob("*.py"):
            shutil.copy(file, folder)
        observer = snippet("almgsi-lda", self.every, self.output)
        (folder / "input.xml").write_text(self.XML.format(steps=self.steps, observer=observer))

    def newest(self, folder: Path) -> Path:
        """The newest state that is whole, else the input."""
        found = {}
        for path in [*folder.glob("run.checkpoint_*"), folder / "RESTART"]:
            text = path.read_text() if path.exists() else ""
            if "</simulation>" in text and step_of(text) <= self.up_to:
                found[path] = step_of(text)
        return max(found, key=found.__getitem__, default=folder / "input.xml")

    def resumes_at(self, folder: Path) -> float:
        return step_of(self.newest(folder).read_text()) or -1

    def is_over(self, folder: Path) -> bool:
        return step_of(self.newest(folder).read_text()) >= self.steps

    def start(self, folder: Path) -> Processes:
        state = self.newest(folder)
        if step_of(state.read_text()) == 0:  # killed before its first state: from the start
            shutil.rmtree(self.trace(folder), ignore_errors=True)
            state = folder / "input.xml"
        shutil.copy(state, folder / "start.xml")
        self._socket(folder).unlink(missing_ok=True)
        processes = Processes(started(self.server(folder), folder))
        processes.helpers = [self._client(folder) for _ in range(2)]
        return processes

    def server(self, folder: Path) -> list[object]:
        return [BIN / "i-pi", "-S", self._prefix(folder), "start.xml"]

    def replace(self, folder: Path, processes: Processes, index: int) -> None:
        processes.helpers[index] = self._client(folder)

    def _client(self, folder: Path) -> subprocess.Popen[bytes]:
        # Clients of i-PI do not wait for their server.
        wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.05)\nos.execv(sys.argv[2], sys.argv[2:])"
        client = [BIN / "i-pi-driver-py", "-u", "-S", self._prefix(folder), "-a", "faults", "-m", "custom"]
        client += ["-P", "petdos_potential.py", "-o", "model=almgsi-lda,template=init.xyz"]
        return started([sys.executable, "-c", wait, self._socket(folder), *client], folder)

    def _prefix(self, folder: Path) -> str:
        return f"/tmp/ipi_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}_"

    def _socket(self, folder: Path) -> Path:
        return Path(f"{self._prefix(folder)}faults")


class PetdosIpiRun(IpiRun):
    """The same with ``petdos ipi`` in place of the stock program."""

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        address = f"> {self._socket(folder).name.removeprefix('ipi_')} <"
        text = self.XML.format(steps=self.steps, observer="").replace("> faults <", address)
        (folder / "input.xml").write_text(text)

    def server(self, folder: Path) -> list[object]:
        options = ["--dos", "almgsi-lda", "--every", self.every, "-o", self.output]
        return [BIN / "petdos", "ipi", "start.xml", *options]


def step_of(text: str) -> int:
    """The step of a state of i-PI; 0 for an input."""
    return int(text.split("<step>")[1].split("</step>")[0]) if "<step>" in text else 0


def make_runs() -> dict[str, Run]:
    return {"ase": AseRun(), "lammps": LammpsRun(1), "lammps-2-ranks": LammpsRun(2), "i-pi": IpiRun()}


def started(command: list[object], folder: Path) -> subprocess.Popen[bytes]:
    """A process that writes what it says to ``log``."""
    with open(folder / "log", "ab") as log:
        return subprocess.Popen([str(c) for c in command], cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)


def descendants(pid: int) -> list[int]:
    """A process and all that it started, and they in turn (Linux)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # gone meanwhile
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL, and wait until all of them are dead: only then are their locks free.

    :raises RuntimeError: if one does not die
    """
    deadline = time.monotonic() + DEATH_S
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
    for pid in pids:
        while alive(pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {pid} does not die")
            time.sleep(0.002)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
