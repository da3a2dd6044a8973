"""The allocator keeps freed memory: seen by page faults of a process, and left alone where the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from petdos_md._memory import keep_freed_memory
done = keep_freed_memory(torch.device(sys.argv[1]))
faults = []
for _ in range(12):
    arrays = [torch.ones(n) for n in range(500_000, 10_000_000, 700_000)]  # 2 to 40 MB, together 291 MB
    del arrays
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(done, faults[-1] - faults[5])
"""


def run(device: str, **environment: str) -> tuple[bool, int]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE, device], env=own | environment, capture_output=True, text=True, check=True
    )
    told, faults = done.stdout.split()
    return told == "True", int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_used_again() -> None:
    """After some rounds hardly a page is new; without, a quarter of six times 71 000 pages are."""
    done, faults = run("cpu")
    left_alone, others = run("meta")
    assert done and not left_alone and 4 * faults < others


def test_the_user_has_chosen() -> None:
    assert run("cpu", MALLOC_TRIM_THRESHOLD_="100000")[0] is False
    assert run("cpu", GLIBC_TUNABLES="glibc.malloc.check=0")[0] is False
    assert run("meta")[0] is False
