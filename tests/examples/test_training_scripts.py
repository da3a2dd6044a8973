"""Scripts of the training recipe as they are typed: long runs go on, what cannot work ends with one line."""

from __future__ import annotations

import importlib
import io
import json
import lzma
import math
import re
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.structures import structures

TRAINING = Path(__file__).parents[2] / "examples" / "training"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    """Run a script in an empty folder, in this process: its exit status, what it printed, and its last words on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TRAINING / "dft"))
    monkeypatch.syspath_prepend(str(TRAINING))

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module = importlib.import_module(name)
        code, said = 0, ""
        try:
            module.run(module.main)
        except SystemExit as end:
            code, said = (1, end.code) if isinstance(end.code, str) else (int(end.code or 0), "")
        printed = capsys.readouterr()
        return code, printed.out, said or printed.err

    return call


def series(number: int, kind: str, symbol: str, steps: int = 4) -> list[Atoms]:
    """Snapshots of a walk in small steps, far from those of other walks."""
    rng = np.random.default_rng(number)
    atoms = ase.build.bulk(symbol, "fcc", a=4.0, cubic=True)
    atoms.rattle(0.4, rng=rng)
    found = []
    for step in range(steps):
        atoms.rattle(0.01, rng=rng)
        found.append(atoms.copy())
        found[-1].info = {"index": 10 * number + step, "tag": f"{kind}-{300 + step}K"}
    return found


def with_levels(count: int, energies: bool = True) -> list[Atoms]:
    """Cells of aluminium with eigenvalues and, if wanted, energies and forces."""
    found = structures(count)
    for i, atoms in enumerate(found):
        rng = np.random.default_rng(i)
        levels = np.concatenate(
            [rng.uniform(-7, -3, (2, 6)), rng.uniform(4, 5, (2, 2)), rng.uniform(7, 8, (2, 1))], axis=1
        )
        atoms.info |= {"eigenvalues": np.sort(levels, axis=1), "kweights": np.array([1.0, 1.0])}
        if energies:
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((4, 3)))
    return found


def broken(kind: str) -> Path:
    """A file, or none, that is no data set."""
    good = (TRAINING / "data" / "outside-structures.xyz.xz").read_bytes()
    text = lzma.decompress(good).decode()
    frames = ase.io.read(io.StringIO(text), ":12", format="extxyz")
    whole = sum(len(a) + 2 for a in frames[:7])
    contents = {
        "plain.xyz.xz": text.encode(),
        "empty.xyz.xz": b"",
        "empty.xyz": b"",
        "short.xyz.xz": good[: len(good) // 2],
        "short.xyz": "".join(text.splitlines(keepends=True)[: whole + 3]).encode(),
        "text.xyz": b"no structures\nat all\n",
        "bytes.xyz": bytes(range(128, 256)),
    }
    if kind == "folder":
        Path(kind).mkdir()
    elif kind in contents:
        Path(kind).write_bytes(contents[kind])
    else:
        if kind == "same.xyz":
            frames[4].info["index"] = frames[2].info["index"]
        elif kind == "nan.xyz":
            frames[3].positions[0, 1] = np.nan
        elif kind in ("tagless.xyz", "numberless.xyz"):
            del frames[1].info["tag" if kind == "tagless.xyz" else "index"]
        elif kind == "flat.xyz":
            frames[1].cell[2] = 0.0
        elif kind == "half.xyz":
            frames[1].info["split"] = "test"
        if kind != "nothere.xyz":
            ase.io.write(kind, frames, format="extxyz")
    return Path(kind)


UNREADABLE = {
    "plain.xyz.xz": "is not compressed by xz",
    "empty.xyz.xz": "is empty",
    "short.xyz.xz": "is cut: the compressed data end too early",
    "short.xyz": "structure 6 is the last whole one (from 0), what begins at line",
    "text.xyz": "it begins with something cut or something else",
    "bytes.xyz": "can't decode byte 0x80",
    "folder": "is a folder",
    "nothere.xyz": "no such file",
    "same.xyz": "structures 2 and 4 both have index",
    "nan.xyz": "has positions or a cell that are not finite",
    "numberless.xyz": "structure 1 has no index; expected a whole number",
}
"""What split.py and compute.py say of each."""


@pytest.mark.parametrize(
    ("kind", "said"),
    [*UNREADABLE.items(), ("empty.xyz", "holds no structures"), ("tagless.xyz", "no 'tag' in the info of structure 1"),
     ("flat.xyz", "structure 1 has no cell"), ("half.xyz", "1 of 12 structures have a split")],
)  # fmt: skip
def test_split_of_what_is_no_data_set(kind: str, said: str, typed) -> None:
    path = broken(kind)
    before = path.read_bytes() if path.is_file() else None
    code, _, line = typed("split", path)
    assert code == 1 and said in line
    assert line.startswith((f"{kind}: ", f"error: {kind}: ")) and len(line.strip().splitlines()) == 1
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(("kind", "said"), [*UNREADABLE.items(), ("empty.xyz", "holds no structures")])
def test_compute_from_what_is_no_data_set(kind: str, said: str, typed) -> None:
    code, _, line = typed("compute", broken(kind), "-o", "out.xyz.xz", "--work", "work")
    assert code == 1 and said in line
    assert len(line.strip().splitlines()) == 1 and not Path("work").exists() and not Path("out.xyz.xz").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pseudo-dir", "here"], "/here/Al.pz-vbc.UPF: no such pseudopotential (Al)"),
        (["--pseudo", '{"Ga": ["Ga.UPF", 3]}'], "--pseudo says nothing of Al, only of Ga"),
        (["--pseudo", "Ga.UPF"], 'got Ga.UPF, expected JSON as {"Ga": ["Ga.UPF", 3]}'),
        (["--pseudo", '{"Ga": "Ga.UPF"}'], 'expected JSON as {"Ga": ["Ga.UPF", 3]}'),
        (["--gpaw", "gold"], "got gold, expected JSON, or one of gaas, lps, hea"),
        (["--jobs", "0"], "got --jobs 0, expected 1 or more"),
        (["--scratch", "nothere"], "nothere, expected a folder"),
        (["--work", "mixed"], "mixed: holds foreign.xyz, expected only NUMBER.xyz"),
        (["--collect"], "nothing is finished in work, and out.xyz.xz is left as it is"),
    ],
)
def test_compute_looks_before_it_runs(options: list[str], said: str, typed) -> None:
    """A pseudopotential that is missing is seen before the first structure; an output is never replaced by nothing."""
    ase.io.write("al.xyz", structures(3), format="extxyz")
    Path("here").mkdir()
    for symbol in ("Al", "Mg", "Si"):
        Path("mixed").mkdir(exist_ok=True)
        Path("mixed", {"Al": "Al.pz-vbc.UPF", "Mg": "Mg.pz-n-vbc.UPF", "Si": "Si.pz-vbc.UPF"}[symbol]).touch()
    Path("mixed/foreign.xyz").touch()
    Path("out.xyz.xz").write_bytes(b"results")
    more = ["--work", "work"] * ("--work" not in options) + ["--pseudo-dir", "mixed"] * ("--pseudo-dir" not in options)
    code, _, line = typed("compute", "al.xyz", "-o", "out.xyz.xz", *more, *options)
    assert code in (1, 2) and said in line and len(line.strip().splitlines()) == 1
    assert not Path("work").exists() and Path("out.xyz.xz").read_bytes() == b"results"


@pytest.mark.parametrize("suffix", [".xyz", ".xyz.xz"])
def test_collect(suffix: str, typed) -> None:
    """What is finished goes by its number into one file, which is compressed if its name says so."""
    Path("work").mkdir()
    for atoms in with_levels(3):
        ase.io.write(f"work/{atoms.info['index']:05d}.xyz", atoms, format="extxyz")
    assert typed("compute", "no.xyz", "-o", f"out{suffix}", "--work", "work", "--collect")[0] == 0
    raw = Path(f"out{suffix}").read_bytes()
    assert raw.startswith(b"\xfd7zXZ") == (suffix == ".xyz.xz")
    found = ase.io.read(f"out{suffix}", ":", format="extxyz")
    assert [a.info["index"] for a in found] == [0, 1, 2]
    for atoms, expected in zip(found, with_levels(3), strict=True):
        np.testing.assert_allclose(atoms.info["eigenvalues"], expected.info["eigenvalues"], atol=1e-7)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["mine.xyz", "mine.xyz.xz"])
def test_the_split_alone_is_written(name: str, end: str, typed) -> None:
    """Plain or compressed; with the tag in quotes or at the end of its line, nothing else changes."""
    found = [a for n in range(13) for a in series(n, "a b" if n % 2 else "c", "Al" if n % 3 else "Mg")]
    ase.io.write("text.xyz", found, format="extxyz")
    text = Path("text.xyz").read_text()
    if name == "mine.xyz":
        text = re.sub(r""" (tag=(?:"[^"]*"|\S+)) (pbc="[^"]*")""", r" \2 \1", text)
        assert text.count("tag=c-300K\n") + text.count('tag="a b-300K"\n') == 13
    raw = text.replace("\n", end).encode()
    Path(name).write_bytes(lzma.compress(raw) if name.endswith(".xz") else raw)
    code, printed, line = typed("split", name)
    assert code == 0, line
    written = Path(name).read_bytes()
    written = lzma.decompress(written) if name.endswith(".xz") else written
    assert re.sub(rb" split=(train|validation|test)", b"", written) == raw
    parts = re.findall(rb" split=(\w+)", written)
    counts = {part: parts.count(part.encode()) for part in ("train", "validation", "test")}
    assert len(parts) == 52 and printed.splitlines()[-1] == f"{name}: all: " + ", ".join(
        f"{n} {part}" for part, n in counts.items()
    )
    before = Path(name).read_bytes()
    code, printed, _ = typed("split", name)
    assert code == 0 and Path(name).read_bytes() == before and printed.startswith(f"{name}: has its split already")


@pytest.mark.parametrize("kinds", [1, 2, 5, 12])
@pytest.mark.parametrize("count", [12, 40, 52, 100])
def test_every_part_gets_something(kinds: int, count: int, typed) -> None:
    """Walks of four steps, of however many kinds: none is divided, and test and validation get their two thirds of a share, or two."""
    sys.modules.pop("split", None)
    split = importlib.import_module("split")
    walks = [series(n, f"kind{n % kinds}", "Al" if n % 2 else "Mg") for n in range(count // 4)]
    parts = split.split_by_series([a for walk in walks for a in walk])
    assert all(len(set(parts[4 * n : 4 * n + 4])) == 1 for n in range(len(walks)))
    least = {"test": max(2, 0.16 * count * 2 / 3), "validation": max(2, 0.12 * count * 2 / 3)}
    sizes = {part: parts.count(part) for part in ("train", *least)}
    assert all(sizes[part] >= math.ceil(n) for part, n in least.items())
    assert sizes["train"] >= (0.5 * count if count > 12 else count / 3)


@pytest.mark.parametrize("walks", [[4], [4, 4], [1, 1, 20]])
def test_too_few_blocks(walks: list[int], typed) -> None:
    found = [a for n, steps in enumerate(walks) for a in series(n, "a", "Mg" if n == 1 else "Al", steps)]
    for n, atoms in enumerate(found):
        atoms.info["index"] = n
        if len(walks) == 3 and n > 1:
            atoms.positions[:] = found[2].positions  # all the same: one block
    ase.io.write("few.xyz", found, format="extxyz")
    before = Path("few.xyz").read_bytes()
    code, _, line = typed("split", "few.xyz")
    assert code == 1 and "too few for training, validation and test" in line and len(line.splitlines()) == 1
    assert Path("few.xyz").read_bytes() == before


@pytest.mark.parametrize(
    ("info", "said"),
    [({"index": 3, "split": "valid"}, "split=valid, expected train, validation or test"), ({"index": "b"}, "index b"),
     ({}, "no index, expected")],
)  # fmt: skip
def test_a_structure_of_no_part(info: dict, said: str, typed) -> None:
    from petdos_md.base.errors import SettingError

    split = importlib.import_module("split")
    atoms = Atoms("Al")
    atoms.info = info
    with pytest.raises(SettingError, match=said):
        split.split_of(atoms)


@pytest.fixture
def data(tmp_path: Path, typed) -> Path:
    """Files for the scripts that take a model: whole, without labels, without energies, of a folder, of nothing."""
    ase.io.write("good.xyz", with_levels(14), format="extxyz")
    ase.io.write("bare.xyz", structures(14), format="extxyz")
    ase.io.write("few.xyz", with_levels(3), format="extxyz")
    gallium = structures(14)
    for atoms in gallium:
        atoms.symbols[0] = "Ga"
    ase.io.write("ga.xyz", gallium, format="extxyz")
    Path("empty.xyz").touch()
    Path("folder").mkdir()
    return tmp_path


MODEL, CHECKPOINT = "MODEL", "CHECKPOINT"
NO_MODEL = "no such file and no shipped model"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("compare", ["a=nothere.pt", "--test", "t=dos.xyz"], NO_MODEL),
        ("compare", ["a=MODEL", "--test", "t=nothere.xyz"], "nothere.xyz: cannot be read as extended XYZ: no such file"),
        ("compare", ["a=MODEL", "--test", "t=empty.xyz"], "empty.xyz: holds no structures"),
        ("compare", ["a=MODEL", "--test", "t=folder"], "folder: cannot be read as extended XYZ: is a folder"),
        ("compare", ["a=MODEL", "--test", "t=good.xyz"], "good.xyz: no 'dos' in the info of structure 0"),
        ("compare", ["a=MODEL", "--test", "t=dos.xyz"], "structure 0 has a DOS of shape (7,)"),
        ("compare", ["MODEL", "--test", "t=dos.xyz"], "expected LABEL=MODEL"),
        ("compare", ["a=MODEL", "a=MODEL", "--test", "t=dos.xyz"], "got a label twice"),
        ("networks", ["nothere.pt", "good.xyz"], NO_MODEL),
        ("networks", [MODEL, "nothere.xyz"], "nothere.xyz: no such data set"),
        ("networks", [MODEL, "empty.xyz"], "empty.xyz: "),
        ("networks", [MODEL, "folder"], "folder: "),
        ("networks", [MODEL, "bare.xyz"], "bare.xyz: structure 0 has neither dos nor eigenvalues"),
        ("networks", [MODEL, "few.xyz"], "a part of the split is empty"),
        ("networks", [MODEL, "good.xyz", "--no-training", "-o", "out"], "no such network"),
        ("networks", [MODEL, "good.xyz", "--epochs", "0"], "got --epochs 0, expected 1 or more"),
        ("rigidity", ["nothere.pt", "--data", "good.xyz"], NO_MODEL),
        ("rigidity", [MODEL, "--data", "nothere.xyz"], "nothere.xyz: no such file"),
        ("rigidity", [MODEL, "--data", "empty.xyz"], "no structures"),
        ("rigidity", [MODEL, "--data", "folder"], "no structures"),
        ("rigidity", [MODEL, "--data", "ga.xyz"], "Ga"),
        ("rigidity", [MODEL, "--data", "good.xyz", "--regularizer", "0"], "got --regularizer 0, expected a positive"),
        ("energy_ensemble", ["nothere.pt", "--checkpoint", CHECKPOINT, "--data", "good.xyz"], NO_MODEL),
        ("energy_ensemble", [MODEL, "--checkpoint", "nothere.ckpt", "--data", "good.xyz"], "no such checkpoint"),
        ("energy_ensemble", [MODEL, "--checkpoint", "good.xyz", "--data", "good.xyz"], "not a readable metatrain"),
        ("energy_ensemble", [MODEL, "--checkpoint", CHECKPOINT, "--data", "nothere.xyz"], "nothere.xyz: no such file"),
        ("energy_ensemble", [MODEL, "--checkpoint", CHECKPOINT, "--data", "empty.xyz"], "empty.xyz: "),
        ("energy_ensemble", [MODEL, "--checkpoint", CHECKPOINT, "--data", "folder"], "folder: "),
        ("energy_ensemble", [MODEL, "--checkpoint", CHECKPOINT, "--data", "bare.xyz"], "has no energy"),
        ("energy_ensemble", [MODEL, "--checkpoint", CHECKPOINT, "--data", "few.xyz"], "expected one structure or more"),
        ("stability", ["nothere.pt"], NO_MODEL),
        ("stability", [MODEL, "--systems", "Cu"], "invalid choice: 'Cu'"),
        ("stability", [MODEL, "--jobs", "0"], "got --jobs 0, expected 1 or more"),
        ("stability", [MODEL, "--time-ps", "0"], "got --time-ps 0 and --timestep-fs 2"),
        ("stability", [MODEL, "-o", "good.xyz"], "good.xyz: holds no finished runs"),
        ("stability", [MODEL, "-o", "other.json"], "other.json: was made with another model, seed"),
    ],
)  # fmt: skip
def test_errors_in_one_line(name, arguments, said, typed, data: Path, metal_path: Path, checkpoints) -> None:
    """No traceback, and neither model nor readout changes."""
    atoms = structures(1)[0]
    atoms.info["dos"] = np.ones(7)
    ase.io.write("dos.xyz", atoms, format="extxyz")
    Path("other.json").write_text('{"Al 300 K 10 ps": {"model": "another", "seed": 5}}')
    readout = metal_path.with_name("metal.readout.safetensors")
    before = metal_path.stat().st_mtime_ns, readout.stat().st_mtime_ns
    places = {MODEL: str(metal_path), CHECKPOINT: str(checkpoints[0])}
    arguments = [re.sub(r"MODEL|CHECKPOINT", lambda found: places[found[0]], a) for a in arguments]
    code, _, line = typed(name, *arguments)
    assert code in (1, 2) and said in line and len(line.strip().splitlines()) == 1, line
    assert (metal_path.stat().st_mtime_ns, readout.stat().st_mtime_ns) == before


def test_stability_runs_and_goes_on(metal_path: Path, tmp_path: Path) -> None:
    """As it is typed, with two processes; another call computes only what is not in the file yet."""
    output = tmp_path / "new" / "runs.json"

    def call(*systems: str) -> str:
        command = [sys.executable, str(TRAINING / "stability.py"), str(metal_path), "--jobs", "2", "--time-ps", "0.05",
                   "-o", str(output), "--systems", *systems]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = call("Al")
    assert said.startswith(f"2 simulations of 0.05 ps, 2 at a time; 0 in {output}\n")
    first = json.loads(output.read_text())
    # 0.05 ps of 2 fs; Al melts at 933 K and its neighbors are a / sqrt(2) apart, at 1120 K in a cell 2 % wider.
    assert sorted(first) == ["Al 1120 K 0.05 ps", "Al 300 K 0.05 ps"]
    for row in first.values():
        assert row["time_ps"] == pytest.approx(0.05) and row["atoms"] == 64
        assert row["nearest_crystal_A"] == pytest.approx(4.05 / np.sqrt(2)) and 2.0 < row["closest_A"] < 3.0
        assert 0.2 * row["wanted_K"] < row["mean_K"] < 1.2 * row["wanted_K"]
    output.write_text(json.dumps({key: row for key, row in first.items() if "300" in key}))
    said = call("Al")
    assert said.startswith(f"1 simulations of 0.05 ps, 2 at a time; 1 in {output}\n")
    again = json.loads(output.read_text())
    kept = [json.dumps(rows["Al 300 K 0.05 ps"]) for rows in (first, again)]  # as text, in which NaN is NaN
    assert kept[0] == kept[1]
    assert again["Al 1120 K 0.05 ps"]["mean_K"] == pytest.approx(first["Al 1120 K 0.05 ps"]["mean_K"], rel=1e-6)
    assert said.count("| Al | 64 |") == 2
