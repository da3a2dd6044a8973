"""Electronic heat capacity of CoCrFeMnNi by replica exchange with swaps of atoms, as in Fig. 7 of the PET-MAD-DOS article.

    python alloy.py                                  # hours; stop it, kill it: the same command goes on
    python alloy.py --quick                          # a minute, to see that it works
    python alloy.py --dos general=trio-pbesol bespoke=hea.pt lora=hea-lora-100.pt
    python alloy.py --potential pet-mad.pt --dos pet-mad-dos.pt   # with downloaded models

Stock i-PI moves 16 replicas of 20 atoms between 500 and 1200 K (logarithmic) at zero pressure; clients of ASE compute the forces. An observer
for each model samples in the server; models that are named in a later call are evaluated on the stored frames. Needs
``pip install 'petdos-md[ipi]'``. C_el is, as in the article, that of averages of denoised frames, member by member.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from common import find_potential, load_models, parser
from heat_capacity import compare
from tqdm import tqdm

import petdos_md as pm
from petdos_md.engines.rerun import rerun_trajectory

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "ipi"))
from run import done, newest_state, step_of  # noqa: E402

BIN = Path(sys.executable).parent
SUPERCELL = [[1, 2, 0], [2, -3, 1], [3, 0, -2]]
"""Of the primitive fcc cell: 20 atoms, all periodic images at least 6.7 angstrom away."""
SYMBOLS = ("Co", "Cr", "Fe", "Mn", "Ni")


def alloy(quick: bool) -> Atoms:
    """An equimolar random fcc solution of 20 atoms, or of 5."""
    primitive = ase.build.bulk("Ni", "fcc", a=3.56)
    atoms = ase.build.make_supercell(primitive, np.diag([1, 1, 5]) if quick else SUPERCELL)
    atoms.symbols[:] = np.random.default_rng(17).permutation(np.repeat(SYMBOLS, len(atoms) // 5))
    return atoms


def main() -> int:
    arguments = parser(__doc__ or "", "alloy")
    arguments.add_argument("--replicas", type=int, help="temperatures from 500 to 1200 K (default: 16)")
    arguments.add_argument(
        "--clients", type=int, default=2, help="processes that compute forces (default: %(default)s)"
    )
    arguments.add_argument("--burn-in", type=int, help="steps left out of the averages (default: a fifth)")
    arguments.add_argument("--client", metavar="ADDRESS", help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.client:
        return client(args)
    args.steps = args.steps or (20 if args.quick else 3000)
    args.every = 2 if args.quick else 5
    args.replicas = args.replicas or (4 if args.quick else 16)
    args.output = args.output.resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    ladder = np.geomspace(500.0, 1200.0, args.replicas).round(2)
    models = load_models(args.dos)
    state = newest_state(args.output)
    if state is None or step_of(state.read_text()) < args.steps:
        status = simulate(args, input_text(args, ladder, state))
        state = newest_state(args.output)
        if status != 0 or state is None or not done(state.read_text()):
            print(
                f"{args.output}: stopped at step {step_of(state.read_text()) if state else 0}; the same command goes on"
            )
            return status or 1
    traces = {label: trace_of(label, model, args.output, ladder) for label, model in models.items()}
    burn_in = args.steps // 5 if args.burn_in is None else args.burn_in
    compare(traces, models, args.output, burn_in, n_structures=8 if args.quick else None)
    return 0


def input_text(args: argparse.Namespace, ladder: np.ndarray, state: Path | None) -> str:
    """The input of i-PI: what it has written itself, or the template beside this script."""
    if state is not None:
        return re.sub(
            r"<total_steps>[^<]*</total_steps>", f"<total_steps> {args.steps} </total_steps>", state.read_text()
        )
    for trace in args.output.glob("run-*.zarr"):  # killed before its first checkpoint: nothing to go on from
        shutil.rmtree(trace)
    ase.io.write(args.output / "alloy.xyz", alloy(args.quick), format="extxyz")
    observer = Path(petdos("ipi", "--drivers").strip()) / "petdos_observer.py"
    observers = [
        f"  <ffdirect name='dos-{label}'>\n    <pes> custom </pes>\n    <pes_path> {observer} </pes_path>\n"
        f"    <parameters> {{dos: {model.path}, every: {args.every}, output: run-{label}.zarr}} </parameters>\n  </ffdirect>"
        for label, model in load_models(args.dos).items()
    ]
    instances = [f"      <instance> [{i:02d}, {t:.2f}] </instance>" for i, t in enumerate(ladder)]
    return (HERE / "alloy.xml").read_text().format(
        every=args.every, checkpoint=10 * args.every, steps=args.steps, exchange=4 if args.quick else 10,
        address=address(args.output), observers="\n".join(observers), instances="\n".join(instances),
    )  # fmt: skip


def address(folder: Path) -> str:
    """Sockets of several runs on one machine must not meet."""
    return f"alloy-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def simulate(args: argparse.Namespace, text: str) -> int:
    """i-PI and its clients, until the end of i-PI."""
    folder, socket = args.output, Path(f"/tmp/ipi_{address(args.output)}")
    (folder / "start.xml").write_text(text)
    (folder / "EXIT").unlink(missing_ok=True)
    socket.unlink(missing_ok=True)  # what a killed server leaves
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with (folder / "log").open("ab") as log:
        options = {"cwd": folder, "stdout": log, "stderr": log, "env": environment}
        server = subprocess.Popen([BIN / "i-pi", "start.xml"], **options)
        while not socket.exists() and server.poll() is None:
            time.sleep(0.1)
        command = [sys.executable, Path(__file__).resolve(), "--client", address(folder), "--potential", args.potential]
        command += ["--device", args.device, "-o", folder]
        clients = [subprocess.Popen(command, **options) for _ in range(args.clients)]
        try:
            follow(server, folder, args.steps)
        finally:
            if server.poll() is None:
                server.terminate()  # i-PI writes a RESTART
                server.wait()
            for process in clients:
                process.terminate()
    if server.returncode != 0:
        print(f"i-PI ended with status {server.returncode}; its last words, from {folder / 'log'}:", file=sys.stderr)
        print("\n".join((folder / "log").read_text(errors="replace").splitlines()[-5:]), file=sys.stderr)
    return server.returncode


def follow(server: subprocess.Popen, folder: Path, steps: int) -> None:
    """Show the steps that i-PI has written until it ends."""
    out = folder / "00_run.out"
    with tqdm(total=steps, desc="i-PI", unit="step", disable=None, mininterval=5) as bar:
        while server.poll() is None:
            time.sleep(1.0)
            rows = [r for r in out.read_text().splitlines() if r.strip() and "#" not in r] if out.exists() else []
            if rows:
                bar.update(int(float(rows[-1].split()[0])) - bar.n)


def client(args: argparse.Namespace) -> int:
    """An ASE calculator that serves i-PI until that hangs up."""
    from ase.calculators.socketio import SocketClient

    atoms = ase.io.read(args.output / "alloy.xyz")
    atoms.calc = find_potential(args.potential, device=args.device).calculator()
    SocketClient(unixsocket=args.client).run(atoms, use_stress=True)
    return 0


def trace_of(label: str, model: pm.DOSModel, folder: Path, ladder: np.ndarray) -> Path:
    """The trace of a model: sampled in the server, or evaluated afterwards on the stored frames."""
    live, later = folder / f"run-{label}.zarr", folder / f"rerun-{label}.zarr"
    if live.exists():
        return live
    frames = folder / "frames.traj"
    write_frames(folder, ladder, frames)
    rerun_trajectory(model, frames, later, resume=True)
    return later


def write_frames(folder: Path, ladder: np.ndarray, output: Path) -> None:
    """What i-PI wrote, with the temperature of the ensemble that held each structure; of what a restart has repeated, the later part holds."""
    found: dict[tuple[int, int], Atoms] = {}
    for positions in sorted(folder.glob("*_run.pos_0.extxyz")):
        rows = np.loadtxt(folder / positions.name.replace(".pos_0.extxyz", ".out"), ndmin=2)
        for row, atoms in zip(rows, ase.io.iread(positions, format="extxyz"), strict=False):
            step, slot = round(row[0]), int(np.abs(ladder - row[2]).argmin())
            frame = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
            frame.info = {"step": step, "temperature_K": float(ladder[slot]), "replica": slot, "time_fs": row[1]}
            frame.calc = SinglePointCalculator(frame, energy=row[4])
            if step > 0:
                found[step, slot] = frame
    with Trajectory(output, "w") as file:
        for key in sorted(found):
            file.write(found[key])


def petdos(*arguments: str) -> str:
    return subprocess.run([BIN / "petdos", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
