"""Run one of the inputs beside this script with stock i-PI, or go on with it where it was stopped or killed.

    python run.py replica_exchange              # 16 replicas of an Al-Mg alloy, two clients; an hour or two on four cores
    python run.py nvt --steps 200               # a short one

Results are in outputs/ipi/NAME: the trace run.zarr, i-PI's own files, and results/ with the heat capacity. Stop it with Ctrl-C, or
kill it: the same command goes on. With more --steps than before it goes on from the end.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
"""Where i-pi, i-pi-driver-py and petdos were installed, together with the Python that runs this."""


def main() -> int:
    args = parse()
    folder = args.output or Path("outputs/ipi") / args.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*HERE.glob("*.xyz"), *Path(petdos("ipi", "--drivers").strip()).glob("*.py")):
        shutil.copy(file, folder)
    start = newest_state(folder) or HERE / f"{args.name}.xml"
    text = changed(start.read_text(), args)
    if done(text):
        print(f"{folder}: all steps are done; more with --steps")
    else:
        (folder / "start.xml").write_text(text)
        if step_of(text) == 0:  # killed before its first checkpoint: nothing to go on from
            shutil.rmtree(folder / "run.zarr", ignore_errors=True)
        print(f"{folder}: {'going on from ' + start.name if start.parent == folder else 'a new run'}")
        status = simulate(folder, args.clients if "<ffsocket" in text else 0)
        if status != 0:
            return status
        state = newest_state(folder)
        if state is None or not done(state.read_text()):
            print(f"{folder}: stopped; the same command goes on")
            return 1
    reweighted = ["--reweight"] if args.name == "replica_exchange" else []
    print(petdos("analyze", str(folder / "run.zarr"), "-o", str(folder / "results"), *reweighted))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in HERE.glob("*.xml")))
    parser.add_argument("--steps", type=int, help="in place of those of the input")
    parser.add_argument(
        "--every", type=int, help="steps between samples, in place of those of the input, with no burn-in"
    )
    parser.add_argument("--clients", type=int, default=2, help="processes that compute forces (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder (default: outputs/ipi/NAME)")
    return parser.parse_args()


def newest_state(folder: Path) -> Path | None:
    """Of all states that i-PI has written to the end, the one with the most steps."""
    found = [
        p
        for p in (*folder.glob("run.checkpoint_*"), folder / "RESTART")
        if p.exists() and "</simulation>" in p.read_text()
    ]
    return max(found, key=lambda path: step_of(path.read_text()), default=None)


def step_of(text: str) -> int:
    match = re.search(r"<step>\s*(\d+)\s*</step>", text)
    return int(match[1]) if match else 0


def done(text: str) -> bool:
    total = re.search(r"<total_steps>\s*(\d+)\s*</total_steps>", text)
    return total is not None and step_of(text) >= int(total[1])


def changed(text: str, args: argparse.Namespace) -> str:
    if args.steps:
        text = re.sub(r"<total_steps>[^<]*</total_steps>", f"<total_steps> {args.steps} </total_steps>", text)
    if args.every:
        text = re.sub(r"every: \d+", f"every: {args.every}", re.sub(r", burn_in: \d+", "", text))
        text = re.sub(r"stride='\d+'( filename='(out|pos)')", rf"stride='{args.every}'\1", text)
        text = re.sub(r"stride='\d+'( filename='checkpoint')", rf"stride='{2 * args.every}'\1", text)
        # In a checkpoint the name comes first.
        text = re.sub(r"(filename='(out|pos)'[^>]*?) stride='\d+'", rf"\1 stride='{args.every}'", text)
    return text


def simulate(folder: Path, n_clients: int) -> int:
    """i-PI and its clients, until the end of i-PI."""
    (folder / "EXIT").unlink(missing_ok=True)
    # Sockets of several runs on one machine must not meet.
    prefix = f"/tmp/ipi_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}_"
    socket = Path(f"{prefix}almg")
    socket.unlink(missing_ok=True)  # what a killed server leaves
    with (folder / "log").open("ab") as log:
        options = {"cwd": folder, "stdout": log, "stderr": log}
        server = subprocess.Popen([BIN / "i-pi", "-S", prefix, "start.xml"], **options)
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        while n_clients and not socket.exists() and server.poll() is None:
            time.sleep(0.1)
        client = [BIN / "i-pi-driver-py", "-u", "-S", prefix, "-a", "almg", "-m", "custom", "-P", "petdos_potential.py"]
        client += ["-o", "model=almgsi-lda,template=almg.xyz,features=run.zarr"]
        clients = [subprocess.Popen(client, **options) for _ in range(n_clients)]
        try:
            status = wait(server)
        finally:
            server.kill()
            for process in clients:
                process.terminate()
    if status != 0:
        print(f"i-PI ended with status {status}; its last words, from {folder / 'log'}:", file=sys.stderr)
        print("\n".join((folder / "log").read_text(errors="replace").splitlines()[-5:]), file=sys.stderr)
    return status


def wait(server: subprocess.Popen) -> int:
    try:
        return server.wait()
    except KeyboardInterrupt:  # i-PI has got it, too, and writes a RESTART
        return server.wait()


def petdos(*arguments: str) -> str:
    return subprocess.run([BIN / "petdos", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
