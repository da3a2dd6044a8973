"""What users are told of frames that are still missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers.synthetic import readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.running import RunningAverage


def test_the_note_and_the_running_average_say_how_many_frames_are_missing(tmp_path: Path) -> None:
    frames = samples(40, seed=5, temperature_K=900.0)
    result = analyze(write(tmp_path / "a.zarr", frames), readout())
    (note,) = (note for note in np.atleast_1d(result.attrs["notes"]) if "lower bounds" in note)
    told = int(re.search(r"about (\d+) more are needed$", note).group(1))  # type: ignore[union-attr]
    missing = float(result["n_still_needed"][0])
    assert missing <= told <= 1.1 * missing + 1 and not int(result["sampling_reliable"][0])
    running = RunningAverage(readout())
    running.extend(frames)
    assert running.result().n_still_needed == missing
    # With three times as many as that they are enough, also on the compressed history.
    many = samples(40 + 3 * told, seed=5, temperature_K=900.0)
    running = RunningAverage(readout(), max_blocks=128)  # fewer than there are frames
    running.extend(many)
    assert len(many) > 128 and running.result().reliable and running.result().n_still_needed == 0


def test_what_cannot_be_told_has_no_number(tmp_path: Path) -> None:
    """Part of one swing in 30 frames: any correlation time may be behind it."""
    frames = samples(30, seed=5, temperature_K=900.0)
    swing = [
        replace(s, features=frames[0].features * np.float32(1 + 0.01 * np.sin(0.1 * k))) for k, s in enumerate(frames)
    ]
    result = analyze(write(tmp_path / "a.zarr", swing), readout())
    assert any("how many cannot be told" in note for note in np.atleast_1d(result.attrs["notes"]))


def test_replicas_that_disagree_need_more_replicas(tmp_path: Path) -> None:
    frames = []
    for replica in range(3):
        for frame in samples(200, seed=replica, temperature_K=900.0):
            features = frame.features * np.float32(1 + 0.2 * replica)
            frames.append(replace(frame, features=features, replica=replica))
    result = analyze(write(tmp_path / "a.zarr", frames), readout())
    assert np.isinf(result["n_still_needed"][0])
    assert any(
        "more of them are needed rather than more frames" in note for note in np.atleast_1d(result.attrs["notes"])
    )
