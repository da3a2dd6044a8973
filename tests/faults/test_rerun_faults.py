"""Trajectories with something wrong in them, through the commands: what is whole is sampled, the rest is one line, nothing stays behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms

from petdos_md.cli.main import main
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.engines.structures import closeness
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace


def rattled(n: int, **info: object) -> list[Atoms]:
    frames = []
    for seed in range(n):
        atoms = ase.build.bulk("Al", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.info.update(info)
        frames.append(atoms)
    return frames


def told(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("petdos: ")]
    return line.removeprefix("petdos: error: ")


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[Path]:
    """A folder that must hold in the end what it holds when the test hands it over by ``(folder / "given").mkdir()``: files only."""
    yield tmp_path
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("kind", ["extxyz", "traj"])
def test_cut_file(kind: str, batch: int, metal_path: Path, metal: DOSModel, tmp_path: Path, capsys) -> None:
    """All whole frames are those of the file before it was cut."""
    frames = rattled(7)
    ase.io.write(tmp_path / f"f.{kind}", frames)
    content = (tmp_path / f"f.{kind}").read_bytes()
    (tmp_path / f"cut.{kind}").write_bytes(content[:-60])
    rerun = [
        "rerun",
        "--dos",
        metal_path,
        tmp_path / f"cut.{kind}",
        "--temperature",
        300,
        "--batch",
        batch,
        "-o",
        tmp_path / "o.zarr",
    ]
    message = told(capsys, *rerun)
    assert "frame 6 is cut" in message and message.endswith("the 6 frames before it are in the trace")
    trace = Trace.open(tmp_path / "o.zarr", "r")
    assert trace.step.tolist() == [0, 1, 2, 3, 4, 5]
    expected = np.array([metal.evaluate(atoms).features for atoms in frames[:6]])
    np.testing.assert_allclose(trace.features[:], expected, rtol=1e-4, atol=1e-4)
    # The frame comes, the same command goes on.
    (tmp_path / f"cut.{kind}").write_bytes(content)
    assert main([str(word) for word in [*rerun, "--resume"]]) == 0
    assert len(Trace.open(tmp_path / "o.zarr", "r")) == 7
    assert main([str(w) for w in [*rerun[:-1], tmp_path / "i.zarr", "--index", ":6"]]) == 0


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("step=prod-10", "frame 1 has step = prod-10, expected an integer"),
        ("step=0.9", "frame 1 has step = 0.9, expected an integer"),
        ("step=nan", "frame 1 has step = nan, expected an integer"),
        ("step=99999999999999999999", "expected an integer"),
        ("weight=none", "frame 1 has weight = none, expected a number, 0 or more"),
        ('weight="1 1"', "frame 1 has weight = [1 1], expected a number"),
        ("weight=-1", "frame 1 has weight = -1, expected a number, 0 or more"),
        ("weight=T", "frame 1 has weight = True, expected a number"),
        ("time_fs=NA1", "frame 1 has time_fs = NA1, expected a time in fs"),
        ("replica=A", "frame 1 has replica = A, expected an integer"),
        ("replica=-1", "frame 1 has replica = -1, expected an integer"),
        ("temperature_K=hot", "frame 1 has temperature_K = hot, expected a positive number"),
        ('temperature_K="300 300"', "frame 1 has temperature_K = [300 300], expected a positive number"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_labels_that_are_no_numbers(label: str, message: str, first: bool, metal_path, tmp_path: Path, capsys) -> None:
    head = 'Lattice="4.05 0 0 0 4.05 0 0 0 4.05" Properties=species:S:1:pos:R:3 pbc="T T T"'
    good, bad = (f"2\n{head} {x}\nAl 0 0 0\nAl 2 2 0.1\n" for x in ("temperature_K=300", label))
    (tmp_path / "a.extxyz").write_text(bad if first else good + bad)
    output = tmp_path / "new" / "folder" / "o.zarr"
    given = [] if "temperature_K" in label else ["--temperature", 300]
    line = told(capsys, "rerun", "--dos", metal_path, tmp_path / "a.extxyz", *given, "-o", output)
    assert (message.replace("frame 1", "frame 0") if first else message) in line
    if first:
        assert [path.name for path in tmp_path.iterdir()] == ["a.extxyz"]
    else:
        assert len(Trace.open(output, "r")) == 1


def test_labels_as_numbers_in_words(metal: DOSModel, tmp_path: Path) -> None:
    head = 'Lattice="4.05 0 0 0 4.05 0 0 0 4.05" Properties=species:S:1:pos:R:3'
    (tmp_path / "a.xyz").write_text(
        f'1\n{head} step=10.0 time_fs=2.5D1 weight="0.5" temperature_K=3e2 replica=2\nAl 0 0 0\n'
    )
    rerun_trajectory(metal, tmp_path / "a.xyz", tmp_path / "o.zarr")
    (sample,) = Trace.open(tmp_path / "o.zarr", "r")
    assert (sample.step, sample.time_fs, sample.weight, sample.temperature_K, sample.replica) == (10, 25, 0.5, 300, 2)


class TestRepeatedSteps:
    @pytest.fixture
    def both(self, tmp_path: Path) -> tuple[Path, list[Atoms]]:
        """Two runs that count from zero, one after the other."""
        frames = []
        for temperature in (300.0, 600.0):
            for k, atoms in enumerate(rattled(3, temperature_K=temperature)):
                atoms.rattle(0.02 * temperature / 300, seed=int(temperature) + k)
                atoms.info["step"] = 10 * k
                frames.append(atoms)
        ase.io.write(tmp_path / "both.extxyz", frames)
        return tmp_path / "both.extxyz", frames

    def test_a_new_run_is_a_replica(self, both, metal: DOSModel, tmp_path: Path, caplog) -> None:
        path, frames = both
        with caplog.at_level(logging.WARNING, logger="petdos_md"):
            result = rerun_trajectory(metal, path, tmp_path / "o.zarr")
        assert (result.n_new, result.n_known) == (6, 0)
        assert "frame 3 goes back to step 0: a new run, replica 1" in caplog.text and len(caplog.records) == 1
        trace = Trace.open(tmp_path / "o.zarr", "r")
        assert list(zip(trace.replica.tolist(), trace.step.tolist(), strict=True)) == [
            (0, 0), (0, 10), (0, 20), (1, 0), (1, 10), (1, 20),
        ]  # fmt: skip
        assert trace.temperature_K.tolist() == [300.0] * 3 + [600.0] * 3
        expected = np.array([metal.evaluate(atoms).features for atoms in frames])
        np.testing.assert_allclose(trace.features[:], expected, rtol=1e-4, atol=1e-4)

    def test_replicas_do_not_depend_on_the_index(self, both, metal: DOSModel, tmp_path: Path) -> None:
        rerun_trajectory(metal, both[0], tmp_path / "o.zarr", index="::2")
        result = rerun_trajectory(metal, both[0], tmp_path / "o.zarr", resume=True)
        assert (result.n_new, result.n_known) == (3, 3)
        trace = Trace.open(tmp_path / "o.zarr", "r")
        at = {
            (r, s): t for r, s, t in zip(trace.replica.tolist(), trace.step.tolist(), trace.temperature_K, strict=True)
        }
        assert at == {(r, s): [300.0, 600.0][r] for r in (0, 1) for s in (0, 10, 20)}

    def test_the_same_frame_is_one(self, both, metal: DOSModel, tmp_path: Path) -> None:
        frames = both[1][:3]
        ase.io.write(tmp_path / "twice.extxyz", [*frames, frames[2], frames[1]])
        result = rerun_trajectory(metal, tmp_path / "twice.extxyz", tmp_path / "o.zarr")
        assert (result.n_new, result.n_known) == (3, 2)

    def test_another_file_of_that_name(self, both, metal: DOSModel, tmp_path: Path, metal_path, capsys) -> None:
        """The trace knows step 0 of replica 0: of another structure."""
        path, frames = both
        rerun_trajectory(metal, path, tmp_path / "o.zarr")
        ase.io.write(path, [*frames[3:], *frames[:3]])
        line = told(capsys, "rerun", "--dos", metal_path, path, "--resume", "-o", tmp_path / "o.zarr")
        assert "is step 0 of replica 0, which" in line and "holds with another temperature_K" in line
        for atoms in frames:
            atoms.rattle(0.3, seed=9)
        ase.io.write(path, frames)
        line = told(capsys, "rerun", "--dos", metal_path, path, "--resume", "-o", tmp_path / "o.zarr")
        assert "holds with another features" in line
        assert len(Trace.open(tmp_path / "o.zarr", "r")) == 6


class TestNothingIsLeft:
    @pytest.mark.parametrize("kind", ["element", "electrons", "cell", "atoms", "number"])
    def test_rerun(self, kind: str, metal_path: Path, nothing_left: Path, capsys) -> None:
        atoms = ase.build.bulk("Cu" if kind == "element" else "Al", cubic=True)
        more: list[object] = ["--electrons", "Al=inf"] if kind == "electrons" else []
        if kind == "cell":
            atoms.cell[2] = atoms.cell[0]
        if kind == "atoms":
            atoms = atoms[:0]
        if kind == "number":
            atoms.info["step"] = "x"
        path = nothing_left / "a.traj"
        ase.io.write(path, atoms)
        told(
            capsys,
            "rerun",
            "--dos",
            metal_path,
            path,
            "--temperature",
            300,
            *more,
            "-o",
            nothing_left / "new" / "o.zarr",
        )

    @pytest.mark.parametrize(
        "more", [["--trajectory", "WRONG"], ["--electrons", "Al=inf"], ["--ensemble", "npt"]], ids=str
    )
    def test_md(self, more: list[str], metal_path: Path, nothing_left: Path, capsys) -> None:
        atoms = ase.build.bulk("Al", cubic=True)
        atoms.pbc = "npt" not in more
        ase.io.write(nothing_left / "a.traj", atoms)
        command = [
            "md",
            nothing_left / "a.traj",
            "--potential",
            "emt",
            "--dos",
            metal_path,
            "--temperature",
            300,
            "--steps",
            2,
        ]
        told(capsys, *command, *more, "-o", nothing_left / "new" / "o.zarr")

    def test_md_of_an_unknown_potential_for_the_atoms(self, metal_path: Path, nothing_left: Path, capsys) -> None:
        """EMT knows no silicon; that is seen only when the dynamics are made."""
        ase.io.write(nothing_left / "a.traj", ase.build.bulk("Si"))
        command = [
            "md",
            nothing_left / "a.traj",
            "--potential",
            "emt",
            "--dos",
            metal_path,
            "--temperature",
            300,
            "--steps",
            2,
        ]
        line = told(capsys, *command, "--trajectory", nothing_left / "b.traj", "-o", nothing_left / "o.zarr")
        assert "the potential emt cannot evaluate Si" in line
        assert sorted(path.name for path in nothing_left.iterdir()) == ["a.traj"]

    def test_what_was_there_stays(self, metal_path: Path, tmp_path: Path, capsys) -> None:
        ase.io.write(tmp_path / "a.traj", rattled(2))
        rerun = ["rerun", "--dos", metal_path, tmp_path / "a.traj", "--temperature", 300, "-o", tmp_path / "o.zarr"]
        assert main([str(word) for word in rerun]) == 0
        ase.io.write(tmp_path / "a.traj", ase.build.bulk("Cu"))
        told(capsys, *rerun, "--resume")
        assert len(Trace.open(tmp_path / "o.zarr", "r")) == 2


def test_close_atoms_are_told_once(metal: DOSModel, tmp_path: Path, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closeness, "_warned", set())
    atoms = ase.build.bulk("Al", cubic=True)
    doubled, close = atoms.copy(), atoms.copy()
    doubled.positions[3] = doubled.positions[1] + 7 * doubled.cell[0]
    close.positions[2] = close.positions[0] + [0, 0, 0.02]
    ase.io.write(tmp_path / "a.extxyz", [atoms, doubled, close, doubled, close])
    with caplog.at_level(logging.WARNING, logger="petdos_md"):
        rerun_trajectory(metal, tmp_path / "a.extxyz", tmp_path / "o.zarr", temperature_K=300)
    first, second = [record.getMessage() for record in caplog.records]
    assert "frame 1: atoms 1 (Al) and 3 (Al) are 0 angstrom apart: one is there twice" in first
    assert "frame 2: atoms 0 (Al) and 2 (Al) are 0.02 angstrom apart" in second


def test_validate(metal_path: Path, tmp_path: Path, capsys) -> None:
    head = 'Lattice="4.05 0 0 0 4.05 0 0 0 4.05" Properties=species:S:1:pos:R:3'
    for info, message in (
        ("dos=none", "structure 0 has dos = none, expected numbers"),
        ("eigenvalues=x kweights=1", "structure 0 has eigenvalues = x, expected numbers"),
        ('eigenvalues="-3 -2" kweights=y', "structure 0 has kweights = y, expected numbers"),
        ('n_electrons=many dos="1 2"', "structure 0 has n_electrons = many, expected numbers"),
        ('n_electrons=-3 dos="1 2"', "structure 0 has n_electrons = -3, expected a positive number"),
        ('dos="1 2"', "structure 0 has a DOS of shape (2,)"),
    ):
        (tmp_path / "d.extxyz").write_text(f"1\n{head} {info}\nAl 0 0 0\n")
        assert message in told(capsys, "validate", metal_path, tmp_path / "d.extxyz", "-o", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "d.extxyz").write_text(f"1\n{head.replace('4.05 0 0 0', '0 4.05 0 0')} dos=1\nAl 0 0 0\n")
    assert "structure 0: the cell is 0 angstrom thin" in told(
        capsys, "validate", metal_path, tmp_path / "d.extxyz", "-o", tmp_path / "o"
    )
    (tmp_path / "d.extxyz").write_text(f"1\n{head} index=a\nAl 0 0 0\n")
    line = told(capsys, "validate", metal_path, tmp_path / "d.extxyz", "--where", "index%10=3", "-o", tmp_path / "o")
    assert "a structure has index = a" in line
