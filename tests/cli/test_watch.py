"""``petdos watch``: what it shows is what an analysis gives, in a real terminal, while the trace grows."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.following import Follower
from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import SettingError
from petdos_md.cli.main import main
from petdos_md.models.readout import Readout
from petdos_md.results.watching import sparkline, watch_page, watch_text
from petdos_md.traces.trace import Trace

FRAMES = samples(200, seed=7, temperature_K=900.0)


def saved_model(folder: Path) -> Path:
    """Only what lies beside the model is read."""
    source = readout()
    assert source._weights is not None and source._deviations is not None
    import torch

    weights, deviations = torch.from_numpy(source._weights), torch.from_numpy(source._deviations)
    Readout.save(folder / "m.readout.safetensors", source.grid, weights, deviations, source.fingerprint)
    (folder / "m.pt").touch()
    return folder / "m.pt"


def test_follows_a_growing_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    follower = Follower(path, readout(), target_error=1e-3)
    assert follower.update() == 0 and follower.message == f"waiting for {path}"
    with Trace.open(path, model=FRAMES[0].model, engine="ase", fsync=False) as trace:
        for start in range(0, 200, 50):
            for sample in FRAMES[start : start + 50]:
                trace.append(sample)
            trace.flush()
            assert follower.update() == 50 and follower.update() == 0
            expected = analyze(path, readout()).isel(temperature=0)
            (state,) = follower.states
            for value, ending in zip(state.result.heat_capacity, ("", "_model_std", "_sampling_err"), strict=True):
                assert value == pytest.approx(float(expected[f"heat_capacity{ending}"]), rel=1e-6)
            assert state.result.reliable == bool(expected["sampling_reliable"])
            assert state.result.n_still_needed == float(expected["n_still_needed"])
            assert state.capacities[-1] == pytest.approx(state.result.heat_capacity.value, rel=1e-10)
            part = [float(x) for x in state.n_seen]
            assert part == sorted(part) and part[-1] == start + 50
        # As many samples as the square root law asks for.
        ratio = state.relative_error / 1e-3
        assert ratio > 1
        assert state.n_to_target + 200 == pytest.approx(max(200 * ratio**2, state.result.n_still_needed + 200), abs=2)
        k = 20
        assert len(state.n_seen) == 100 and state.n_seen[k] == pytest.approx(2 * (k + 1), abs=8)  # frames have weights
        half = write(tmp_path / "half.zarr", FRAMES[: 2 * (k + 1)])  # 200 samples are 100 blocks of two
        assert state.capacities[k] == pytest.approx(float(analyze(half, readout())["heat_capacity"][0]), rel=1e-9)
        trace.truncate(500)
        trace.flush()
        follower.update()
        assert follower.states[0].result.n_samples == len(trace) == 51
    for width in (30, 45, 60, 100):  # what is still to take is seen in the narrowest window, notes as a whole in all
        lines = watch_text(follower, width)
        assert max(map(len, lines)) <= width and ("▁" in "".join(lines)) == (width == 100)
        head = next(line for line in lines if "T (K)" in line)
        assert ("to 0.1 %" in head or width == 30) and ("samples" in head) == (width > 45)
        assert "share of C_el" in " ".join(" ".join(lines).split())
    with pytest.raises(SettingError, match="target error"):
        Follower(path, target_error=0.0)


def test_a_small_error_that_is_a_lower_bound(tmp_path: Path) -> None:
    """Far below the target, but not known: what is missing is samples to know it, as many as the analysis asks for."""
    frames = FRAMES[:40]
    follower = Follower(write(tmp_path / "run.zarr", frames).path, readout(), target_error=0.5)
    follower.update()
    lines = watch_text(follower)
    (line,) = (line for line in lines if line.strip().startswith("900"))
    assert any(line.startswith("to know: below 50 %") for line in lines)
    needed = int(analyze(tmp_path / "run.zarr", readout())["n_still_needed"][0])
    assert follower.states[0].relative_error < 0.5 and not follower.converged
    shown = re.search(r"> [\d.]+ %  ([\d ]+) to know", line)
    assert shown and int(shown.group(1).replace(" ", "")) == pytest.approx(needed, rel=0.06)
    follower = Follower(tmp_path / "run.zarr", readout(), target_error=1e-3)
    follower.update()
    assert "to know" not in "".join(watch_text(follower))


@pytest.mark.parametrize("explodes", [False, True])
def test_a_simulation_that_runs_away(explodes: bool, tmp_path: Path) -> None:
    """Seen in the run itself, by the criterion of the analysis: canonical kinetic temperatures of 8 atoms, or ones that explode."""
    rng = np.random.default_rng(0)
    kinetic = 900.0 * (np.geomspace(1, 1e5, 40) if explodes else rng.chisquare(21, 40) / 21)
    frames = [replace(s, kinetic_temperature_K=float(k)) for s, k in zip(FRAMES, kinetic, strict=False)]
    follower = Follower(write(tmp_path / "run.zarr", frames).path, readout())
    follower.update()
    said = f"900 K: the simulation ran away from its ensemble, its kinetic temperature is {kinetic.mean():.3g} K"
    assert any(said in line for line in watch_text(follower, 300)) == explodes
    assert (said in watch_page(follower, 5.0)) == explodes
    assert np.isfinite(follower.states[0].result.runaway_K) == explodes
    notes = analyze(tmp_path / "run.zarr", readout()).attrs.get("notes", [])
    assert any("ran away" in note for note in notes) == explodes


def test_sparkline_is_monotonic() -> None:
    line = sparkline(np.arange(100.0), 8)
    assert list(line) == sorted(line) and len(set(line)) == 8
    assert sparkline([1.0, np.nan, 1.0], 8) == "▁▁" and sparkline([], 8) == ""


def test_once_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved_model(tmp_path)
    write(tmp_path / "run.zarr", FRAMES)
    command = ["watch", str(tmp_path / "run.zarr"), "--model", str(model), "--once", "--html", str(tmp_path / "p.html")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    value = float(re.search(r"900 +200 +([\d.]+) ±", shown).group(1))  # type: ignore[union-attr]
    expected = analyze(tmp_path / "run.zarr", str(model)).isel(temperature=0)
    assert value == pytest.approx(float(expected["heat_capacity"]) / 8 / BOLTZMANN_EV, rel=2e-2)
    page = (tmp_path / "p.html").read_text()
    assert '<meta http-equiv="refresh" content="3">' in page and "<svg" in page and f"{value}" in page
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []
    assert main(["watch", str(tmp_path / "none.zarr"), "--once"]) == 1
    assert "waiting for" in capsys.readouterr().out
    follower = Follower(tmp_path / "<b>.zarr")
    follower.update()
    assert "<b>" not in watch_page(follower, 5.0)


def test_in_a_terminal(tmp_path: Path) -> None:
    """A pseudo-terminal: the table appears, follows the trace, and Ctrl-C gives the screen back."""
    model, path = saved_model(tmp_path), tmp_path / "run.zarr"
    pid, screen = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs in the background without it
        words = ["watch", str(path), "--model", str(model), "--interval", "0.2"]
        os.execv(sys.executable, [sys.executable, "-m", "petdos_md.cli.main", *words])
    seen = ""

    def wait_for(pattern: str) -> None:
        nonlocal seen
        end = time.monotonic() + 90
        while not re.search(pattern, seen):
            assert time.monotonic() < end, seen[-2000:]
            if select.select([screen], [], [], 0.2)[0]:
                seen += os.read(screen, 65536).decode(errors="replace")

    try:
        wait_for(r"waiting for")
        with Trace.open(path, model=FRAMES[0].model, engine="ase", fsync=False) as trace:
            for sample in FRAMES[:100]:
                trace.append(sample)
            trace.flush()
            wait_for(r" 900 +100 ")
            for sample in FRAMES[100:]:
                trace.append(sample)
        wait_for(r" 900 +200 .*[▁▂▃▄▅▆▇█]{8}")
        os.write(screen, b"\x03")
        wait_for(r"\x1b\[\?1049l[^\x1b]* 900 +200 ")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(screen)
