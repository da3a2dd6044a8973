"""``fix petdos`` with ``append yes``: what a run that goes on keeps, drops and refuses; where its trace is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers.lammps_tools import ALLOY, deviation, run_lmp

from petdos_md.engines.lammps.build import compiler
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

pytestmark = pytest.mark.usefixtures("lammps_plugin")
COMPUTE = "compute dos all petdos almgsi-lda Al Mg\n"
NVT = "fix md all nvt temp 600 600 0.1\n"
DECK = ALLOY.replace("type/ratio", "type/fraction")  # the same on any number of ranks
PAIR = ALLOY[ALLOY.index("pair_style") : ALLOY.index("velocity")]


def read(path: Path) -> Trace:
    return Trace.open(path, "r")


def observed(path: Path | str, more: str = "", every: int = 2) -> str:
    return f"{NVT}{COMPUTE}fix obs all petdos {every} dos {path} {more}\n"


def said_by(deck: str, folder: Path, ranks: int = 0, ok: bool = True) -> str:
    """What `lmp` writes, but for the warning that these atoms are far outside the training set."""
    done = run_lmp(deck, folder, ranks)
    assert (done.returncode == 0) == ok, (done.stdout + done.stderr)[-2000:]
    lines = (done.stdout + done.stderr).splitlines(keepends=True)
    return "".join(line for line in lines if "far outside the training set" not in line)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trace of a run and its restart files."""
    folder = tmp_path_factory.mktemp("first")
    # Decimals of positions in restart files are whole: the run that goes on is the same.
    said_by(DECK + observed("run.zarr") + "restart 4 at.*\nrun 12\n", folder)
    return folder


@pytest.fixture
def begun(first_run: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    shutil.copytree(first_run, tmp_path / "run")
    yield tmp_path / "run"


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_restart_takes_the_samples_after_it_again(ranks: int, begun: Path) -> None:
    """One line says how many; what is before stays to the last bit, what comes is the run that was interrupted; time goes on."""
    before = read(begun / "run.zarr")
    features = np.array(before.features)
    deck = f"read_restart at.4\n{PAIR}{observed('run.zarr', 'append yes')}restart 5 more.*\nrun 14 upto\n"
    said = [line for line in said_by(deck, begun, ranks).splitlines() if "fix petdos" in line]
    told = "the simulation goes on from step 4; 4 samples of replica 0 after it are dropped, to be taken again"
    ended = f"8 samples in {begun}/run.zarr, 5 of this run; almgsi-lda (float32) ran on cpu{', 2 ranks' * (ranks > 1)}"
    assert said == [f"fix petdos: {begun}/run.zarr: {told}", f"fix petdos: {ended}"]
    trace = read(begun / "run.zarr")
    assert trace.step.tolist() == list(range(0, 15, 2))
    assert trace.time_fs.tolist() == pytest.approx(trace.step.tolist(), rel=1e-12)
    assert np.array_equal(trace.features[:3], features[:3])
    assert all(deviation(a, b) < 1e-4 for a, b in zip(trace.features[:7], features, strict=True))
    assert {array.shape[0] for _, array in zarr.open_group(begun / "run.zarr", mode="r").arrays()} == {8}
    # A restart of the restart, of which LAMMPS itself no longer knows the time; nothing is to be dropped.
    deck = f"read_restart more.10\n{PAIR}{observed('fresh.zarr')}run 16 upto\n"
    said_by(deck, begun)
    assert read(begun / "fresh.zarr").time_fs.tolist() == pytest.approx([10.0, 12.0, 14.0, 16.0], rel=1e-12)
    said = said_by(f"read_restart more.10\n{PAIR}{observed('run.zarr', 'append yes', every=7)}run 21 upto\n", begun)
    assert "; 2 samples of replica 0 after it are dropped" in said
    trace = read(begun / "run.zarr")
    assert trace.step.tolist() == [0, 2, 4, 6, 8, 10, 14, 21]
    assert trace.time_fs.tolist() == pytest.approx(trace.step.tolist(), rel=1e-12)


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_trace_with_samples_is_never_begun_again(ranks: int, begun: Path) -> None:
    """A deck that starts anew must not drop what an earlier run of it has taken."""
    before = (begun / "run.zarr" / "step" / "zarr.json").read_bytes()
    said = said_by(DECK + observed("run.zarr", "append yes") + "run 4\n", begun, ranks, ok=False)
    (line,) = (line for line in said.splitlines() if "ERROR" in line)
    told = (
        "holds samples of replica 0 up to step 12, but the simulation starts at step 0; go on from a restart file, or"
    )
    assert line.startswith(f"ERROR: fix petdos: {begun}/run.zarr: {told} write to another path")
    assert before == (begun / "run.zarr" / "step" / "zarr.json").read_bytes()


def test_time_goes_on_where_lammps_has_forgotten_it(begun: Path) -> None:
    """The fix is defined after a first run, which sets the time of LAMMPS back."""
    said_by(f"read_restart at.12\n{PAIR}{NVT}run 0\nunfix md\n{observed('run.zarr', 'append yes')}run 4\n", begun)
    assert read(begun / "run.zarr").time_fs.tolist() == pytest.approx(np.arange(0, 17, 2.0), rel=1e-12)


def test_rows_that_would_have_to_move(begun: Path) -> None:
    """Samples of another replica lie between: refused in one line; after `truncate` the run goes on."""
    deck = DECK + observed("run.zarr", "append yes replica 1") + "run 2\n"
    said_by(deck, begun)
    said_by(f"read_restart at.12\n{PAIR}{observed('run.zarr', 'append yes')}run 2\n", begun)
    before = [(s.replica, s.step) for s in read(begun / "run.zarr")]
    deck = f"read_restart at.8\n{PAIR}{observed('run.zarr', 'append yes')}run 2\n"
    said = [line for line in said_by(deck, begun, ok=False).splitlines() if "ERROR" in line]
    assert len(said) == 1 and said[0].startswith(
        f"ERROR: fix petdos: {begun}/run.zarr: 3 samples of replica 0 after step 8 are to be taken again, but samples that stay lie "
        f"between them; run `petdos truncate {begun}/run.zarr --step 8 --replica 0` once"
    )
    assert [(s.replica, s.step) for s in read(begun / "run.zarr")] == before
    with Trace.open(begun / "run.zarr", "a") as trace:
        assert trace.truncate(8, replica=0) == 3
    said_by(deck, begun)
    kept = [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8), (1, 0), (1, 2), (0, 10)]
    assert [(s.replica, s.step) for s in read(begun / "run.zarr")] == kept


def test_a_trace_that_was_being_truncated(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python process that was killed while it moved rows: refused in one line, nothing is touched."""
    path = begun / "run.zarr"
    with Trace.open(path, "a") as trace:
        trace.append(trace[1], replica=1)
    with monkeypatch.context() as patch, Trace.open(path, "a") as trace:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("petdos_md.traces.store.Store._repair", lambda self: None if self._journal is None else killed())
        with pytest.raises(KeyboardInterrupt):
            trace.truncate(8, replica=0)
    assert (path / "features/truncate.npz").exists()
    said = said_by(f"read_restart at.8\n{PAIR}{observed('run.zarr', 'append yes')}run 2\n", begun, ok=False)
    (line,) = (line for line in said.splitlines() if "ERROR" in line)
    told = "being truncated when its writer was killed; run `petdos truncate"
    assert line.startswith(f"ERROR: fix petdos: {path}: {told} {path}` once, which finishes it")
    with Trace.open(path, "a") as trace:
        assert trace.truncate(10**9) == 0
    assert not (path / "features/truncate.npz").exists()
    # The row of replica 1 was the last one.
    assert [(s.replica, s.step) for s in read(path)] == [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8), (1, 2)]


def test_killed_while_it_committed(begun: Path) -> None:
    """Shapes that differ are those of a writer that was killed: the smallest holds."""
    for name in ("features", "weight", "n_electrons"):
        file = begun / "run.zarr" / name / "zarr.json"
        described = json.loads(file.read_text())
        described["shape"][0] = 5
        file.write_text(json.dumps(described))
    said_by(f"read_restart at.12\n{PAIR}{observed('run.zarr', 'append yes')}run 2\n", begun)
    assert read(begun / "run.zarr").step.tolist() == [0, 2, 4, 6, 8, 12, 14]
    assert {array.shape[0] for _, array in zarr.open_group(begun / "run.zarr", mode="r").arrays()} == {7}


def test_old_formats(begun: Path) -> None:
    """Format 1 is refused in the words of Python, a newer one too; the trace is not touched."""
    path = begun / "run.zarr"
    group = json.loads((path / "zarr.json").read_text())
    for version, expected in (
        (1, "a trace of format 1, which can be read but not written"),
        (3, "trace format version 3"),
    ):
        group["attributes"]["schema_version"] = version
        (path / "zarr.json").write_text(json.dumps(group))
        if version == 1:
            (path / "features").rename(path / "psi")
        said = said_by(f"read_restart at.8\n{PAIR}{observed('run.zarr', 'append yes')}run 2\n", begun, ok=False)
        (line,) = (line for line in said.splitlines() if "ERROR" in line)
        assert line.startswith(f"ERROR: fix petdos: {path}: {expected}")
        assert ("`petdos merge NEW.zarr " in line) == (version == 1)
        assert (path / "psi").exists() and not (path / "features").exists()


@pytest.mark.parametrize(
    ("key", "ranks"), [("model", 2), ("versions", 0), ("engine", 0), ("metadata", 0), ("skipped", 0)]
)
def test_attributes_of_another_kind(key: str, ranks: int, begun: Path) -> None:
    """One line, on two ranks as well, for attributes that no version of petdos-md has written."""
    group = json.loads((begun / "run.zarr/zarr.json").read_text())
    group["attributes"][key] = [1]
    (begun / "run.zarr/zarr.json").write_text(json.dumps(group))
    said = said_by(f"read_restart at.8\n{PAIR}{observed('run.zarr', 'append yes')}run 2\n", begun, ranks, ok=False)
    assert said.count("ERROR: ") == 1
    assert f"run.zarr: damaged or foreign trace: attributes are incomplete ({key}); restore it from a copy" in said


def test_a_rerun_drops_nothing(begun: Path) -> None:
    """Its steps are those of a file, in any order; a trace of its own gives no warning, one that has them says so once."""
    deck = DECK + NVT + "dump d all custom 2 run.dump id type x y z\ndump_modify d format float %.17g sort id\nrun 12\n"
    said_by(deck, begun)
    again = (
        DECK
        + "compute dos all petdos almgsi-lda Al Mg\nfix obs all petdos 2 dos {} temp 600 {}\nrerun run.dump {} dump x y z\n"
    )
    said = said_by(again.format("new.zarr", "", "first 6"), begun)
    assert "holds step" not in said and said.count("fix petdos") == 1
    assert f"fix petdos: 4 samples in {begun}/new.zarr, 4 of this run; almgsi-lda" in said
    said = said_by(again.format("new.zarr", "append yes", "last 4"), begun)
    assert said.count("fix petdos") == 1
    assert f"fix petdos: 7 samples in {begun}/new.zarr, 3 of this run; almgsi-lda" in said
    new, run = read(begun / "new.zarr"), read(begun / "run.zarr")
    assert new.step.tolist() == [6, 8, 10, 12, 0, 2, 4]
    assert new.time_fs.tolist() == pytest.approx(new.step.tolist(), rel=1e-12)
    for sample in new:
        (same,) = (s for s in run if s.step == sample.step)
        assert deviation(sample.features, same.features) < 1e-4
    said = said_by(again.format("new.zarr", "append yes", "first 8"), begun)
    assert said.count("holds step 10 of replica 0 already, steps that are there are not sampled again") == 1
    assert len(read(begun / "new.zarr")) == 7


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`shell cd` between runs, and a home folder."""
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    deck = DECK + observed("run.zarr") + "run 4\nshell cd sub\nrun 4\n"
    deck += "unfix obs\nfix obs all petdos 2 dos ~/a/home.zarr/ append yes\nrun 2\n"
    said_by(deck, tmp_path)
    assert read(tmp_path / "run.zarr").step.tolist() == [0, 2, 4, 6, 8]
    assert read(tmp_path / "home" / "a" / "home.zarr").step.tolist() == [8, 10]
    assert list((tmp_path / "sub").iterdir()) == []
    said = said_by(DECK + observed("~no-such-user/run.zarr"), tmp_path, ok=False)
    assert "there is no home folder ~no-such-user; give the path in full" in said and said.count("ERROR: ") == 1


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without flock: a warning, and the run goes on; another error of it ends the run."""
    (tmp_path / "flock.c").write_text(
        '#include <errno.h>\n#include <stdlib.h>\nint flock(int fd, int how) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }\n'
    )
    subprocess.run([compiler(), "-shared", "-fPIC", "-x", "c", "flock.c", "-o", "flock.so"], cwd=tmp_path, check=True)
    import errno

    deck = DECK + observed("run.zarr", "append yes") + "run 2\n"
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(tmp_path / "flock.so"))
        patch.setenv("FLOCK_ERRNO", str(errno.ENOLCK))
        said = said_by(deck, tmp_path, 1)
        warning = f"WARNING: fix petdos: {tmp_path}/run.zarr: no file locks here; take care that one process writes"
        assert said.count(warning) == 1
        patch.setenv("FLOCK_ERRNO", str(errno.EIO))
        said = said_by(deck, tmp_path, 1, ok=False)
        assert f"ERROR: fix petdos: {tmp_path}/run.zarr: cannot be locked: Input/output error; check that path" in said
    assert read(tmp_path / "run.zarr").step.tolist() == [0, 2]


def test_box_that_is_deformed(tmp_path: Path) -> None:
    """The order of the fixes tells which box a sample has: that of the dump if fix petdos comes last; else it is said."""
    deform = "fix shear all deform 1 x erate 5.0\n"
    volume = 'variable v equal vol\nfix v all print 2 "${v}" file v.txt screen no title none\n'
    said = said_by(DECK + deform + observed("after.zarr") + volume + "run 4\n", tmp_path)
    assert "WARNING" not in said
    after = read(tmp_path / "after.zarr").volume_A3
    assert after[1:].tolist() == pytest.approx(np.loadtxt(tmp_path / "v.txt", comments=["#", "none"])[-2:], rel=1e-5)
    said = said_by(DECK + observed("before.zarr") + deform + "run 4\n", tmp_path)
    assert said.count("fix shear changes the box after a sample is taken") == 1
    assert "define fix obs after fix shear" in said
    before = read(tmp_path / "before.zarr").volume_A3
    assert before[1] < after[1] and before[2] < after[2]


def test_python_goes_on_with_it(begun: Path) -> None:
    with Trace.open(begun / "run.zarr", "a", model=DOSModel.load("almgsi-lda")) as python:
        assert python.append(python[-1], step=14)
    said_by(f"read_restart at.12\n{PAIR}{observed('run.zarr', 'append yes')}run 4\n", begun)
    assert read(begun / "run.zarr").step.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16]
