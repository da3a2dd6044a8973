"""Traces under random sequences of what happens to them, beside a plain list of what must be there.

Processes really die: a forked writer ends at the n-th call that touches a file, or is killed with its samples in memory.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.traces import MODEL, assert_same, fork, make_sample, small_chunks  # noqa: F401 - a fixture
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from petdos_md.base.errors import TraceError
from petdos_md.base.sample import Sample
from petdos_md.traces.trace import Trace

EXAMPLES, STEPS = (400, 60) if "PETDOS_FUZZ" in os.environ else (8, 30)
NEVER = {"flush_every": 10**6, "flush_interval_s": 1e9, "fsync": False}
SYSTEM_CALLS = ("open", "pwrite", "ftruncate", "replace", "rename", "unlink", "mkdir", "close")
DIED = 77

REPLICAS = st.integers(0, 2)
STEP_NUMBERS = st.integers(-2, 14)
REASONS = st.sampled_from(["not finite", "too close"])


class Row(NamedTuple):
    """A sample: ``seed`` says what is in it, so that one that came second under the same step is told from the first."""

    replica: int
    step: int
    seed: int
    content_of: int

    def sample(self) -> Sample:
        return replace(make_sample(self.seed, self.content_of), replica=self.replica, step=self.step)


@dataclass
class Expected:
    """What must be in one trace."""

    path: Path
    disk: list[Row] = field(default_factory=list)
    memory: list[Row] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_to: dict[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        return self.disk + self.memory

    def steps(self, replica: int) -> list[int]:
        return [row.step for row in self.rows if row.replica == replica]

    def append(self, replica: int, step: int | None, seed: int) -> Row | None:
        """The row that is new, None if the trace has that step."""
        if step is None:
            step = max(self.steps(replica), default=-1) + 1
        if step in self.steps(replica):
            return None
        self.memory.append(Row(replica, step, seed, replica))
        return self.memory[-1]

    def flush(self) -> None:
        self.disk, self.memory = self.rows, []

    def truncate(self, step: int, replica: int | None) -> int:
        self.flush()
        kept = [row for row in self.disk if row.step <= step or replica not in (None, row.replica)]
        dropped, self.disk = len(self.disk) - len(kept), kept
        return dropped


OPERATIONS = st.one_of(
    st.tuples(st.just("append"), REPLICAS, STEP_NUMBERS),
    st.tuples(st.just("append"), REPLICAS, st.none()),
    st.tuples(st.just("flush"), st.none(), st.none()),
    st.tuples(st.just("truncate"), st.one_of(st.none(), REPLICAS), STEP_NUMBERS),
)


class Traces(RuleBasedStateMachine):
    """Up to four traces; one of them may be open for writing in this process."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
        self.expected: list[Expected] = []
        self.writer: Trace | None = None
        self.written: Expected | None = None
        self.seed = 0

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.close()
        shutil.rmtree(self.folder)

    @initialize(n=st.integers(1, 2))
    def make(self, n: int) -> None:
        for _ in range(n):
            self.expected.append(Expected(self.folder / f"{len(self.expected)}.zarr"))
            Trace.open(self.expected[-1].path, model=MODEL, **NEVER).close()

    # -- one writer in this process -------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is None)
    @rule(which=st.integers(0, 3))
    def open(self, which: int) -> None:
        self.written = self.expected[which % len(self.expected)]
        self.writer = Trace.open(self.written.path, **NEVER)

    @precondition(lambda self: self.writer is not None)
    @rule(replica=REPLICAS, step=st.one_of(st.none(), STEP_NUMBERS))
    def append(self, replica: int, step: int | None) -> None:
        self.seed += 1
        expected = self.written.append(replica, step, self.seed)
        sample = replace(make_sample(self.seed, replica), step=step)
        assert self.writer.append(sample) == (expected is not None)

    @precondition(lambda self: self.writer is not None)
    @rule(replica=REPLICAS, first=STEP_NUMBERS, stride=st.integers(1, 4), n=st.integers(2, 9))
    def append_many(self, replica: int, first: int, stride: int, n: int) -> None:
        for step in range(first, first + n * stride, stride):
            self.append(replica, step)

    @precondition(lambda self: self.writer is not None)
    @rule(reason=REASONS, replica=REPLICAS, step=st.one_of(st.none(), STEP_NUMBERS))
    def skip(self, reason: str, replica: int, step: int | None) -> None:
        trace = self.written
        counts = step is None or step > trace.skipped_to.get(replica, step - 1)
        assert self.writer.skip(reason, step, replica) == counts
        if counts:
            trace.skipped[reason] = trace.skipped.get(reason, 0) + 1
            trace.skipped_to |= {} if step is None else {replica: step}

    @precondition(lambda self: self.writer is not None)
    @rule()
    def flush(self) -> None:
        self.writer.flush()
        self.written.flush()

    @precondition(lambda self: self.writer is not None)
    @rule(step=STEP_NUMBERS, replica=st.one_of(st.none(), REPLICAS))
    def truncate(self, step: int, replica: int | None) -> None:
        assert self.writer.truncate(step, replica) == self.written.truncate(step, replica)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def close(self) -> None:
        self.writer.close()
        self.written.flush()
        self.writer = self.written = None

    @precondition(lambda self: self.writer is not None and len(self.written.memory))
    @rule()
    def second_writer_is_refused(self) -> None:
        with pytest.raises(TraceError, match="being written by"):
            Trace.open(self.written.path, **NEVER).append(make_sample(99, 9))

    # -- writers that die -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is None)
    @rule(which=st.integers(0, 3), operations=st.lists(OPERATIONS, min_size=1, max_size=12), at=st.integers(1, 120))
    def a_writer_dies(self, which: int, operations: list[tuple], at: int) -> None:
        """It must leave the trace as it was before or after the operation that it died in, or between two parts of that."""
        trace = self.expected[which % len(self.expected)]
        # What may be found, by the number of operations that were finished.
        after, inside = [list(trace.disk)], [[]]
        seeded = []
        for name, replica, step in operations:
            self.seed += 1
            seeded.append((name, replica, step, self.seed))
            if name == "append":
                trace.append(replica, step, self.seed)
                inside.append([])
            elif name == "flush":
                inside.append([after[-1], trace.rows])
                trace.flush()
            else:
                inside.append([after[-1], trace.rows])
                trace.truncate(step, replica)
                inside[-1].append(list(trace.disk))
            after.append(list(trace.disk))
        read, write = os.pipe()
        child = fork.Process(target=_write_and_die, args=(trace.path, seeded, at, write))
        child.start()
        os.close(write)
        with open(read) as report:
            done = len(report.read())
        child.join(60)
        assert child.exitcode in (DIED, -signal.SIGKILL)
        trace.memory = []
        possible = (
            [after[done]]
            if child.exitcode == -signal.SIGKILL
            else [after[done], *inside[min(done + 1, len(operations))]]
        )
        found = [(sample.replica, sample.step, sample.features.tobytes()) for sample in Trace.open(trace.path, "r")]
        fits = [
            rows for rows in possible if found == [(r.replica, r.step, r.sample().features.tobytes()) for r in rows]
        ]
        assert fits, f"{len(found)} samples, expected one of {[len(rows) for rows in possible]}"
        trace.disk = list(fits[0])

    # -- others ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is None and len(self.expected) < 4)
    @rule(which=st.lists(st.integers(0, 3), min_size=1, max_size=3), replicas=st.sampled_from(["auto", "keep"]))
    def merge(self, which: list[int], replicas: str) -> None:
        sources = list({id(trace): trace for trace in (self.expected[i % len(self.expected)] for i in which)}.values())
        output = Expected(self.folder / f"{len(self.expected)}.zarr")
        own = [sorted({row.replica for row in trace.disk} | trace.skipped_to.keys()) for trace in sources]
        flat = [replica for numbers in own for replica in numbers]
        through = replicas == "auto" and len(set(flat)) < len(flat)
        for i, trace in enumerate(sources):
            first = sum(map(len, own[:i]))
            number = {old: first + place if through else old for place, old in enumerate(own[i])}
            output.disk += [row._replace(replica=number[row.replica]) for row in trace.disk]
            for reason, n in trace.skipped.items():
                output.skipped[reason] = output.skipped.get(reason, 0) + n
            for old, step in trace.skipped_to.items():
                output.skipped_to[number[old]] = max(step, output.skipped_to.get(number[old], step))
        keys = [row[:2] for row in output.disk]
        paths = [trace.path for trace in sources]
        if len(set(keys)) < len(keys):
            with pytest.raises(TraceError, match="is both in"):
                Trace.merge(output.path, paths, replicas=replicas)
            assert not output.path.exists()
            return
        Trace.merge(output.path, paths, replicas=replicas)
        self.expected.append(output)

    @rule(which=st.integers(0, 3), file=st.integers(0, 10**6), where=st.floats(0, 1, exclude_max=True))
    def a_cut_file_is_told(self, which: int, file: int, where: float) -> None:
        """A copy of a trace with one file cut anywhere: an error of ours in one line, or all samples as they were."""
        trace = self.expected[which % len(self.expected)]
        copy = self.folder / "cut.zarr"
        shutil.copytree(trace.path, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != "writer.lock")
        victim = files[file % len(files)]
        os.truncate(victim, int(where * victim.stat().st_size))
        try:
            samples = list(Trace.open(copy, "r"))
        except TraceError as error:
            assert "\n" not in str(error) and str(copy) in str(error)
        else:
            assert_rows(samples, trace.disk)
        shutil.rmtree(copy)

    @invariant()
    def what_is_there(self) -> None:
        """A reader sees what was flushed, a writer all of it, by every way to ask."""
        for trace in self.expected:
            reader = Trace.open(trace.path, "r")
            assert_rows(list(reader), trace.disk)
            if trace is not self.written:
                assert reader.skipped == trace.skipped
        if self.writer is not None:
            rows = self.written.rows
            assert_rows(list(self.writer), rows)
            assert self.writer.step.tolist() == [row.step for row in rows]
            for replica in range(3):
                steps = self.written.steps(replica)
                assert self.writer.last_step(replica) == max(steps, default=None)
                assert [s for s in range(-4, 50) if self.writer.has_step(s, replica)] == sorted(
                    s for s in steps if s < 50
                )


def _write_and_die(path: Path, operations: list[tuple], at: int, report: int) -> None:
    """In a process of its own; tells of every operation that it has finished."""
    trace = Trace.open(path, **NEVER)
    left = [at]

    def dying(call):
        def wrapper(*args, **kwargs):
            left[0] -= 1
            if left[0] <= 0:
                os._exit(DIED)
            return call(*args, **kwargs)

        return wrapper

    for name in SYSTEM_CALLS:
        setattr(os, name, dying(getattr(os, name)))
    for name, replica, step, seed in operations:
        if name == "append":
            trace.append(replace(make_sample(seed, replica), step=step))
        elif name == "flush":
            trace.flush()
        else:
            trace.truncate(step, replica)
        os.write(report, b".")
    os.kill(os.getpid(), signal.SIGKILL)


def assert_rows(samples: list[Sample], rows: list[Row]) -> None:
    assert [(sample.replica, sample.step) for sample in samples] == [row[:2] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        assert_same(sample, row.sample())


def test_random_lives(small_chunks: None) -> None:  # noqa: F811
    run_state_machine_as_test(
        Traces,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="PETDOS_FUZZ" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
