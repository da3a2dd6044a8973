"""Density-functional reference data for a DOS model: energies, forces, stresses and dense eigenvalues.

For every structure of an input file, Quantum ESPRESSO or GPAW runs a self-consistent calculation (energy, forces, stress) and
a non-self-consistent one on a denser k-mesh with a random shift (eigenvalues). The shift turns the ripples that a finite mesh
leaves in a DOS into noise, which training averages out. Every structure is one process on one core; finished ones
are kept, so that the same command goes on where it stopped::

    python compute.py ../data/almgsi-structures.xyz.xz -o ../data/almgsi-lda.xyz.xz --work work --jobs 2
    python compute.py ../data/gaas-structures.xyz.xz -o ../data/gaas-pbesol.xyz.xz --work work-gaas --code gpaw --gpaw gaas

For a material of your own, give your structures, a folder of pseudopotentials and ``--pseudo`` for each element. With ``--code gpaw``
(``gpaw_dft.py``), ``--gpaw`` names its settings or gives them as JSON; ``--python`` is the one where gpaw is installed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.espresso import write_espresso_in
from gpaw_dft import SETTINGS
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))
from script import Parser, run, whole

PSEUDOPOTENTIALS = {
    "Al": ("Al.pz-vbc.UPF", 3),
    "Mg": ("Mg.pz-n-vbc.UPF", 2),
    "Si": ("Si.pz-vbc.UPF", 4),
}
"""File and number of valence electrons per element; the files come with Debian's ``quantum-espresso-data``."""


def mesh(atoms: Atoms, spacing: float) -> tuple[int, int, int]:
    """Points along each reciprocal vector so that they lie closer than ``spacing`` (1/angstrom, 2 pi included)."""
    lengths = 2 * np.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    return tuple(int(np.ceil(length / spacing)) for length in lengths)


def shifted_kpoints(size: tuple[int, int, int], shift: np.ndarray) -> np.ndarray:
    """All points of a mesh shifted by a fraction of its step, in units of the reciprocal vectors: (n, 3)."""
    axes = [(np.arange(n) + s) / n for n, s in zip(size, shift, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def control(args: argparse.Namespace, atoms: Atoms, calculation: str, folder: Path) -> dict:
    """Input namelists common to both calculations."""
    electrons = sum(args.pseudo[symbol][1] for symbol in atoms.symbols)
    occupied = int(np.ceil(electrons / 2))
    system = {
        "ecutwfc": args.ecutwfc,
        "occupations": "smearing",
        "smearing": "cold",
        "degauss": 0.01,
        "nosym": True,
        "noinv": calculation == "nscf",
    }
    if calculation == "nscf":
        system["nbnd"] = int(np.ceil(1.9 * occupied)) + 8
    return {
        "control": {
            "calculation": calculation,
            "outdir": str(folder),
            "pseudo_dir": str(args.pseudo_dir),
            "tprnfor": calculation == "scf",
            "tstress": calculation == "scf",
            "verbosity": "high",
            "disk_io": "low" if calculation == "scf" else "none",
        },
        "system": system,
        # A first threshold of 1e-5 leaves 0.1 meV in the eigenvalues and halves the time.
        "electrons": {"conv_thr": 1e-8} if calculation == "scf" else {"diago_thr_init": 1e-5},
    }


def run_pw(args: argparse.Namespace, atoms: Atoms, calculation: str, folder: Path, kpoints) -> Atoms:
    """Run one ``pw.x`` and read what it printed."""
    source, output = folder / f"{calculation}.in", folder / f"{calculation}.out"
    with open(source, "w") as handle:
        write_espresso_in(
            handle,
            atoms,
            input_data=control(args, atoms, calculation, folder),
            pseudopotentials={s: args.pseudo[s][0] for s in set(atoms.symbols)},
            kpts=kpoints if calculation == "scf" else None,
        )
    if calculation == "nscf":
        # ASE writes regular meshes only: the explicit list replaces its Gamma card.
        card = f"K_POINTS crystal\n{len(kpoints)}\n" + "".join(
            f"{x:.12f} {y:.12f} {z:.12f} 1.0\n" for x, y, z in kpoints
        )
        text = source.read_text()
        if "K_POINTS gamma" not in text:
            raise RuntimeError("the input written by ASE has no 'K_POINTS gamma' line to replace")
        source.write_text(text.replace("K_POINTS gamma", card))
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with open(output, "w") as handle:
        done = subprocess.run(
            ["nice", "-n", str(args.nice), args.pw, "-in", str(source)],
            stdout=handle, stderr=subprocess.STDOUT, cwd=folder, env=environment,
        )  # fmt: skip
    text = output.read_text()
    if done.returncode != 0 or "JOB DONE" not in text or "convergence NOT achieved" in text:
        raise RuntimeError(f"pw.x ({calculation}) failed, see the end of its output:\n{text[-1500:]}")
    return ase.io.read(output, format="espresso-out")


def compute(args: argparse.Namespace, atoms: Atoms) -> Atoms:
    """Both calculations for one structure; everything that the data set holds is in ``info`` and the calculator."""
    index = int(atoms.info["index"])
    size_scf, size_nscf = mesh(atoms, args.spacing_scf), mesh(atoms, args.spacing_nscf)
    shift = np.random.default_rng([args.seed, index]).random(3)
    with tempfile.TemporaryDirectory(dir=args.scratch, prefix="petdos-dft-") as name:
        folder = Path(name)
        scf = run_pw(args, atoms, "scf", folder, size_scf)
        nscf = run_pw(args, atoms, "nscf", folder, shifted_kpoints(size_nscf, shift))
    weights = np.asarray(nscf.calc.get_k_point_weights())
    eigenvalues = np.array([nscf.calc.get_eigenvalues(kpt=k, spin=0) for k in range(len(weights))])
    result = atoms.copy()
    result.info = {
        "index": index,
        "tag": atoms.info.get("tag", ""),
        "n_electrons": sum(args.pseudo[symbol][1] for symbol in atoms.symbols),
        "e_fermi_scf": scf.calc.get_fermi_level(),
        "k_scf": " ".join(map(str, size_scf)),
        "k_nscf": " ".join(map(str, size_nscf)),
        "k_shift": " ".join(f"{s:.16f}" for s in shift),
        "eigenvalues": np.round(eigenvalues, 4),
        # pw.x prints them with seven digits: the exact value of an even mesh is known.
        "kweights": weights * (2.0 / weights.sum()),
    }
    result.calc = SinglePointCalculator(
        result, energy=scf.get_potential_energy(), forces=scf.get_forces(), stress=scf.get_stress(voigt=False)
    )
    return result


def compute_gpaw(args: argparse.Namespace, atoms: Atoms) -> Atoms:
    """The same by GPAW, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=args.scratch, prefix="petdos-dft-") as name:
        source, target = Path(name) / "in.xyz", Path(name) / "out.xyz"
        ase.io.write(source, atoms, format="extxyz")
        done = run_gpaw(args, str(source), str(target), json.dumps(args.gpaw))
        if done.returncode != 0:
            raise RuntimeError(f"gpaw failed, see the end of its output:\n{done.stderr[-1500:]}")
        return ase.io.read(target, format="extxyz")


def run_gpaw(args: argparse.Namespace, *arguments: str) -> subprocess.CompletedProcess:
    """``gpaw_dft.py`` with the set-ups of the working folder."""
    script = str(Path(__file__).resolve().with_name("gpaw_dft.py"))
    single = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", GPAW_SETUP_PATH=str(setups(args)))
    command = ["nice", "-n", str(args.nice), args.python, script, *arguments]
    return subprocess.run(command, env=single, capture_output=True, text=True)


def setups(args: argparse.Namespace) -> Path:
    """Where the PAW set-ups are, which take minutes to make, once."""
    return (args.setups or args.work / "setups").resolve()


def check_code(args: argparse.Namespace) -> None:
    """Whether the code can run at all; PAW set-ups are made if they are missing."""
    if args.code == "espresso":
        found = shutil.which(args.pw)
        if found is None:
            sys.exit(f"{args.pw}: no such program; on Debian: apt-get install quantum-espresso quantum-espresso-data")
        args.pw = os.path.abspath(found)  # it runs in another folder
        return
    if subprocess.run([args.python, "-c", "import gpaw"], capture_output=True).returncode != 0:
        sys.exit(f"{args.python} has no gpaw; pip install gpaw==26.7.0 gpaw-data==1.2.1, or name another --python")
    print(f"PAW set-ups in {setups(args)}")
    done = run_gpaw(args, str(setups(args)), "--setups")
    if done.returncode != 0:
        sys.exit(f"the PAW set-ups could not be made:\n{done.stderr[-1500:]}")


def check_pseudopotentials(args: argparse.Namespace, structures: Iterable[Atoms]) -> None:
    """End with one line if an element has no pseudopotential, or its file is not there."""
    for symbol in sorted({s for atoms in structures for s in atoms.symbols}):
        if symbol not in args.pseudo:
            sys.exit(f"--pseudo says nothing of {symbol}, only of {', '.join(args.pseudo)}; expected file and valence electrons of each element")  # fmt: skip
        file = args.pseudo_dir / args.pseudo[symbol][0]
        if not file.is_file():
            sys.exit(f"{file}: no such pseudopotential ({symbol}); give its folder with --pseudo-dir and its name with --pseudo")  # fmt: skip


def pseudopotentials(text: str) -> dict[str, tuple[str, float]]:
    """File and number of valence electrons per element, of JSON."""
    try:
        return {str(symbol): (str(file), electrons + 0) for symbol, (file, electrons) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(f'got {text}, expected JSON as {{"Ga": ["Ga.UPF", 3]}}') from None


def gpaw_settings(text: str) -> dict:
    """Of a name, or as they are."""
    try:
        return SETTINGS[text] if text in SETTINGS else dict(json.loads(text))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"got {text}, expected JSON, or one of {', '.join(SETTINGS)}") from None


def finish(args: argparse.Namespace, atoms: Atoms) -> int:
    """Compute one structure and keep it: the rename makes a result whole or absent."""
    target = args.work / f"{int(atoms.info['index']):05d}.xyz"
    partial = target.with_suffix(".part")
    result = compute(args, atoms) if args.code == "espresso" else compute_gpaw(args, atoms)
    ase.io.write(partial, result, format="extxyz")
    partial.rename(target)
    return int(atoms.info["index"])


def collect(args: argparse.Namespace) -> int:
    """Write all finished structures, by index, into the output file, compressed if its name says so."""
    known = {int(a.info["index"]): a for path in args.known for a in read_numbered(path)}
    for path in sorted(args.work.glob("*.xyz")):
        known |= {int(a.info["index"]): a for a in read_numbered(path)}
    if not known:
        sys.exit(f"nothing is finished in {args.work}, and {args.output} is left as it is; expected NUMBER.xyz there, or give another --work")  # fmt: skip
    with whole(args.output) as partial, opened(partial, "wt") as handle:
        ase.io.write(handle, [known[i] for i in sorted(known)], format="extxyz")
    return len(known)


def read_xz(path: Path) -> list[Atoms]:
    """All structures of a (compressed) extended XYZ file; another file ends the program with a line."""
    found = frames(read_text(path), path)
    return [atoms for _, atoms in tqdm(found, desc=path.name, unit="structure", disable=None, leave=False)]


def read_numbered(path: Path) -> list[Atoms]:
    """The same; each has a number of its own and positions that are finite."""
    found = read_xz(path)
    check_numbered(found, path)
    return found


def read_text(path: Path) -> str:
    """Of a file that is compressed if its name says so, to the letter."""
    problem = "no such file" if not path.exists() else "is a folder" if path.is_dir() else ""
    if path.suffix == ".xz" and not problem and path.stat().st_size == 0:
        problem = "is empty"
    try:
        if not problem:
            with opened(path, "rt") as handle:
                return str(handle.read())
    except EOFError:
        problem = "is cut: the compressed data end too early; copy or write the file anew"
    except lzma.LZMAError as error:
        problem = f"is not compressed by xz, or damaged ({error}); a plain file is read if its name does not end in .xz"
    except (OSError, ValueError) as error:
        problem = str(error)
    sys.exit(f"{path}: cannot be read as extended XYZ: {problem}")


def opened(path: Path, mode: str) -> Any:
    """A text file, compressed if its name says so; the ends of its lines stay as they are."""
    if path.suffix != ".xz":
        return open(path, mode, encoding="utf-8", newline="")
    return lzma.open(path, mode, preset=9 if "w" in mode else None, encoding="utf-8", newline="")


def frames(text: str, path: Path) -> Iterator[tuple[int, Atoms]]:
    """Structures of an extended XYZ text, each with the number of its first line from 0."""
    lines = io.StringIO(text).readlines()
    at = number = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        try:
            end = at + 2 + int(lines[at])
            if end > len(lines):
                raise ValueError(f"its {lines[at].strip()} atoms need {end - len(lines)} lines more")
            while end < len(lines) and lines[end].lstrip().startswith("VEC"):
                end += 1
            atoms = ase.io.read(io.StringIO("".join(lines[at:end]).replace("\r\n", "\n")), index=0, format="extxyz")
        except Exception as error:  # what ASE raises at other text is not said anywhere
            before = f"structure {number - 1} is the last whole one (from 0), what begins at line {at + 1} is" if number else "it begins with something"  # fmt: skip
            sys.exit(f"{path}: cannot be read as extended XYZ: {before} cut or something else ({' '.join(str(error).split())[:80]})")  # fmt: skip
        yield at, atoms
        at, number = end, number + 1


def check_numbered(structures: Iterable[Atoms], path: Path) -> None:
    """End with one line if a structure has no whole number of its own as 'index', or positions that are not finite."""
    seen: dict[int, int] = {}
    for number, atoms in enumerate(structures):
        index = atoms.info.get("index")
        if not isinstance(index, (int, np.integer)) or isinstance(index, bool):
            got = "no index" if index is None else f"index {' '.join(str(index).split())[:40]}"
            sys.exit(f"{path}: structure {number} has {got}; expected a whole number of its own, 'index', in the info of each")  # fmt: skip
        if int(index) in seen:
            sys.exit(f"{path}: structures {seen[int(index)]} and {number} both have index {index}; give each a number of its own")  # fmt: skip
        seen[int(index)] = number
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            sys.exit(f"{path}: structure {number} (index {index}) has positions or a cell that are not finite; leave it out, or mend it")  # fmt: skip


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("structures", type=Path, help="extended XYZ (.xz allowed) with a unique 'index' per structure")
    parser.add_argument("-o", "--output", type=Path, required=True, help="data set to write (.xyz.xz, or plain .xyz)")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of the finished single structures")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="data sets whose structures are done")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one a core")
    parser.add_argument("--nice", type=int, default=15)
    parser.add_argument("--collect", action="store_true", help="compute nothing, write what is finished")
    parser.add_argument("--limit", type=int, help="only the first so many structures")
    parser.add_argument("--code", choices=("espresso", "gpaw"), default="espresso")
    parser.add_argument("--gpaw", type=gpaw_settings, default="gaas", metavar="SETTINGS",
                        help=f"settings of GPAW: {', '.join(SETTINGS)}, or JSON as in gpaw_dft.py")  # fmt: skip
    parser.add_argument("--python", default=sys.executable, help="the one that has gpaw")
    parser.add_argument("--setups", type=Path, help="folder of PAW set-ups of GPAW, by default in the working folder")
    parser.add_argument("--pw", default="pw.x", help="the executable of Quantum ESPRESSO")
    parser.add_argument("--pseudo-dir", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument(
        "--pseudo", type=pseudopotentials, default=PSEUDOPOTENTIALS, help='JSON: {"Al": ["Al.pz-vbc.UPF", 3], ...}'
    )
    parser.add_argument("--ecutwfc", type=float, default=20.0, help="Ry")
    parser.add_argument("--spacing-scf", type=float, default=0.393, help="1/angstrom")
    parser.add_argument("--spacing-nscf", type=float, default=0.30, help="1/angstrom")
    parser.add_argument("--seed", type=int, default=1, help="of the random shifts of the k-meshes")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    for name in ("jobs", "limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"got --{name} {getattr(args, name)}, expected 1 or more")
    if args.collect:
        print(f"{collect(args)} structures in {args.output}")
        return
    # The codes run in folders of their own, where a relative path is another one.
    args.scratch, args.pseudo_dir = args.scratch.resolve(), args.pseudo_dir.resolve()
    if not args.scratch.is_dir():
        parser.error(f"got --scratch {args.scratch}, expected a folder that is there")
    structures = read_numbered(args.structures)[: args.limit]
    if not structures:
        sys.exit(f"{args.structures}: holds no structures; give a file of extended XYZ")
    if args.code == "espresso":
        check_pseudopotentials(args, structures)
    done = finished(args.work) | {int(a.info["index"]) for path in args.known for a in read_numbered(path)}
    todo = [a for a in structures if int(a.info["index"]) not in done]
    check_code(args)
    args.work.mkdir(parents=True, exist_ok=True)
    sys.exit(bool(compute_all(args, todo, len(structures))))


def finished(work: Path) -> set[int]:
    """Numbers of the structures in the working folder."""
    names = [path.stem for path in work.glob("*.xyz")]
    other = [name for name in names if not name.isdecimal()]
    if other:
        sys.exit(f"{work}: holds {other[0]}.xyz, expected only NUMBER.xyz of finished structures; give a folder of its own with --work")  # fmt: skip
    return {int(name) for name in names}


def compute_all(args: argparse.Namespace, todo: list[Atoms], total: int) -> list[int]:
    """Compute what is left of ``total`` structures and write the data set; returns the numbers of those that failed."""
    failed: dict[int, str] = {}
    progress = tqdm(total=total, initial=total - len(todo), unit="structure", mininterval=5)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        jobs = {pool.submit(finish, args, atoms): int(atoms.info["index"]) for atoms in todo}
        try:
            for job in concurrent.futures.as_completed(jobs):
                if job.exception() is not None:
                    failed[jobs[job]] = str(job.exception())
                    print(f"structure {jobs[job]}: {job.exception()}", file=sys.stderr)
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what waits would run to its end otherwise
            raise
    progress.close()
    print(f"{collect(args)} structures in {args.output}; failed: {sorted(failed) or 'none'}")
    return sorted(failed)


if __name__ == "__main__":
    run(main)
