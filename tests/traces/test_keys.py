"""Which steps a trace holds, against a plain set, in memory that does not grow."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.traces import assert_is, make_sample, path, small_chunks

from petdos_md.traces import keys as _trace_keys
from petdos_md.traces import writer as _trace_writer
from petdos_md.traces.trace import Trace


def test_a_replica_and_step_is_stored_once(path: Path) -> None:
    with Trace.open(path, flush_every=3) as trace:
        assert [trace.append(make_sample(step, 1)) for step in (0, 5, 5, 0, 10)] == [True, True, False, False, True]
        assert trace.append(make_sample(5, 0))
    with Trace.open(path) as trace:
        assert not trace.append(make_sample(10, 1, temperature_K=777.0))
        assert trace.append(make_sample(None, 1, temperature_K=777.0))
        assert trace.append(make_sample(None, 2))
        assert trace.append(make_sample(99, 2), step=3)
        assert trace.append(make_sample(None, 2))
        assert (trace.last_step(), trace.last_step(1), trace.last_step(2), trace.last_step(3)) == (5, 11, 4, None)
        assert trace.has_step(11, 1) and not trace.has_step(11)
    got = list(zip(trace.replica.tolist(), trace.step.tolist(), strict=True))
    assert got == [(1, 0), (1, 5), (1, 10), (0, 5), (1, 11), (2, 0), (2, 3), (2, 4)]
    assert trace.temperature_K[2] == 400.0 and trace.temperature_K[4] == 777.0


class Counted:
    """All pairs in a set, the plain way; counts how often it was asked."""

    def __init__(self) -> None:
        self.pairs: set[tuple[int, int]] = set()
        self.asked = 0

    def __call__(self, replica: int, step: int) -> bool:
        self.asked += 1
        return (replica, step) in self.pairs


@pytest.mark.parametrize("order", ["rising", "gaps", "shuffled", "falling", "blocks", "two strides", "irregular"])
def test_keys_are_those_of_a_set(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any order of steps, with runs that overflow: the same answers as a plain set gives."""
    monkeypatch.setattr(_trace_keys, "MAX_RUNS", 8)
    rng = np.random.default_rng(3)
    steps = {
        "rising": np.arange(0, 3000, 10),
        "gaps": np.delete(np.arange(0, 3000, 10), rng.choice(300, 40, replace=False)),
        "shuffled": rng.permutation(300),
        "falling": np.arange(3000, 0, -10),
        "blocks": np.concatenate([np.arange(1000, 2000, 10), np.arange(0, 1000, 10), np.arange(2000, 3000, 10)]),
        "two strides": np.concatenate([np.arange(0, 1000, 10), np.arange(5, 1000, 10), np.arange(1000, 2000, 7)]),
        "irregular": np.sort(rng.choice(3000, 300, replace=False)),
    }[order]
    plain = Counted()
    keys, blocks = _trace_keys.Keys(plain), _trace_keys.Keys(plain)
    for step in steps.tolist():
        for replica in (0, 7):
            assert keys.has(replica, step) == ((replica, step) in plain.pairs)
            if (replica, step) not in plain.pairs:
                keys.add(replica, step)
                plain.pairs.add((replica, step))
    pairs = np.array(list(zip([0, 7] * len(steps), np.repeat(steps, 2).tolist(), strict=True)))
    for start in range(0, len(pairs), 64):
        blocks.add_rows(pairs[start : start + 64, 0], pairs[start : start + 64, 1])
    for found in (keys, blocks):
        plain.asked = 0
        for replica in (0, 3, 7):
            assert found.last(replica) == max((s for r, s in plain.pairs if r == replica), default=None)
            for step in range(-20, 3020):
                assert found.has(replica, step) == ((replica, step) in plain.pairs), (replica, step)
        assert found.n_runs <= 2 * 8
        if order in ("rising", "blocks"):
            assert found.n_runs <= 2 * 3 and plain.asked == 0


def test_steps_without_order_are_looked_up(path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None) -> None:
    """With more runs than are kept, pairs are found on disk and among the rows in memory, also after opening again."""
    monkeypatch.setattr(_trace_keys, "MAX_RUNS", 4)
    monkeypatch.setattr(_trace_writer, "LOOK_UP_ROWS", 7)
    steps = np.random.default_rng(0).choice(200, 50, replace=False).tolist()
    for part in (steps[:30], steps):
        with Trace.open(path, flush_every=16, fsync=False) as trace:
            known = set(trace.step.tolist())
            for step in part:
                assert trace.append(make_sample(step)) == (step not in known)
                assert not trace.append(make_sample(step))
            assert trace._writer.keys.n_runs <= 4
            assert [trace.has_step(step) for step in range(200)] == [step in part for step in range(200)]
    assert_is(Trace.open(path, "r"), [(0, step) for step in steps])


def test_memory_does_not_grow_with_steps(path: Path) -> None:
    """Sampling at a stride, 16 replicas, two of them with skipped frames between: a few numbers for each."""

    def grown(first: int, last: int) -> int:
        gc.collect()
        tracemalloc.start()
        for step in range(first, last, 50):
            for replica in range(16):
                if replica > 1 or step % 5000:
                    trace.append(sample, step=step, replica=replica)
        trace.flush()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used

    sample = make_sample(0)
    with Trace.open(path, fsync=False) as trace:
        grown(0, 5000)
        assert trace._writer.keys.n_runs <= 14 + 2 * 2
        # 4800 samples; a set of their pairs takes 250 kB and more.
        assert grown(5000, 20_000) < 40_000
    with Trace.open(path) as trace:
        assert not trace.append(sample, step=19_950, replica=3) and trace.append(sample, step=5000, replica=1)
