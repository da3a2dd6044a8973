"""Do the tests notice? Changes one operator, number or refusal at random, runs the tests of that folder, and counts the changes they find.

    python tests/mutants.py                                  # 40 changes of each folder, or 15 minutes each
    python tests/mutants.py traces --seed 3 --changes 100
    python tests/mutants.py physics --only "thermo.py:61"    # all changes of one line

A change that no test finds *survives*: it is printed, and needs a test, unless it is in the list of equivalent ones below, which are
known to change nothing that anybody could see. Exits 1 if fewer than 90 % of the others are found. The sources are copied first;
nothing is changed in place.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
sys.dont_write_bytecode = True

PRELOADED = (
    "ase.build",
    "ase.io",
    "hypothesis",
    "mpmath",
    "pandas",
    "pytest",
    "scipy.optimize",
    "scipy.signal",
    "torch",
    "xarray",
    "zarr",
)
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "petdos_md"
TESTS = {
    "physics": ["tests/physics"],
    "analysis": [
        "tests/analysis",
        "tests/physics/test_carriers.py",
        "tests/physics/test_denoise.py",
        "tests/results",
        "tests/cli/test_watch.py",
        "tests/faults/test_series.py",
        "tests/faults/test_weight_tables.py",
    ],
    "traces": ["tests/traces", "tests/faults/test_traces.py"],
}
OWN_TESTS = {
    "broadcasting": "broadcasting",
    "curves": "thermo",
    "dft": "dft_",
    "dos_network": "networks",
    "network_inference": "networks",
}
"""Tests of a module that are not called as it is."""
WANTED = 0.9
NOT_LOADED = ("networks.py", "network_inference.py", "dos_network.py")
"""Modules that take minutes of training to test."""

_MEMORY = "only how much memory is used at a time"
_TOLERANCE = "a tolerance, far from what occurs"
EQUIVALENT: dict[str, str] = {
    "analysis/consistency.py: 5 -> 6 in _ROWS_COMPARED = 5": "one more row is compared",
    "analysis/consistency.py: 1 -> 2 in chosen = both[np.unique(np.linspace(0, len(both) - 1, _ROWS_COMPARED).astype(int))[::-1]]": "another row is compared",
    "analysis/frames.py: 8 -> 9 in budget = min(MAX_BLOCKS, max(256, int(HISTORY_BYTES / (8 * self.model.n_features * n_groups))))": _MEMORY,
    "analysis/group_averages.py: 1 -> 2 in for start in range(0, self._members.shape[1], 8):": "slices beyond the members are empty",
    "analysis/group_averages.py: 64e6 -> 96000000.0 in _CHUNK_BYTES = 64e6": _MEMORY,
    "analysis/levels.py: 32e6 -> 48000000.0 in _CHUNK_BYTES = 32e6": _MEMORY,
    "analysis/sampled_states.py: 1e-6 -> 1.5e-06 in if not len(finite) or np.ptp(finite) <= 1e-6 * finite.max():": _TOLERANCE,
    "analysis/statistics.py: 32e6 -> 48000000.0 in _CHUNK_BYTES = 32e6": _MEMORY,
    "analysis/transforms.py: * -> / in frame_step = max(1, min(n, int(max_bytes / (8 * channels * member_step))))": _MEMORY,
    'analysis/notes.py: >= -> > in metal = (data["gap"].values == 0) & (_share_at_fermi_level(data) >= PSEUDOGAP)': _TOLERANCE,
    "analysis/reliability.py: 32 -> 33 in _MIN_BLOCKS = 32": _TOLERANCE,
    "analysis/reliability.py: 0.9999 -> 1.49985 in reflection = np.clip((rho[order] - predicted) / residual, -0.9999, 0.9999)": _TOLERANCE,
    "physics/hot_electrons.py: - -> + in return top - mu >= BOLTZMANN_EV * temperature_K * math.log(1 / MAX_OCCUPATION - 1)": _TOLERANCE,
    "physics/occupation.py: > -> >= in t = np.clip(np.where(np.isnan(t), np.where(a > 0, 1.0, 0.0), t), 0.0, 1.0)": "both ends hold the electrons",
    "analysis/statistics.py: < -> <= in np.where(window < length, window * length - window * (window + 1) / 2, length * (length - 1) / 2)": "both are the same there",
    "analysis/statistics.py: * -> / in step = max(1, int(_CHUNK_BYTES / (8 * 4 * max(n, 1))))": _MEMORY,
    "analysis/group_averages.py: 1 -> 2 in x = series[:, k * functionals.shape[1] : (k + 1) * functionals.shape[1]]": "the first columns are read",
    "physics/denoise.py: 64 -> 65 in _BLOCK = 64  # densities of states treated at once, so that they stay in the cache": _MEMORY,
    "physics/occupation.py: < -> <= in rows = rows[np.isin(rows, element[mine[kT[mine] < hot]])]": "kT is never exactly one of the steps of cooling",
    "physics/occupation.py: >= -> > in while len(mine) and hot >= coldest:": "kT is never exactly one of the steps of cooling",
    "physics/occupation.py: + -> - in halley = newton / np.clip(1 + newton * dk0 / (2 * k0), 0.5, 2.0)": "another way to the same root",
    "physics/variational.py: 0 -> 1 in i = np.clip(segment, 0, len(self.steps) - 1)": "a segment's polynomial, from its other end",
    "physics/occupation.py: <= -> < in reached = mine[(kT[mine] <= hot) & ~np.isnan(root[element[mine]])]": "kT is never exactly one of the steps of cooling",
    "physics/occupation.py: - -> + in last = i + high[0] if len(high) else len(neutral) - 1": "a gap that ends with the grid has one root",
    'traces/schema.py: 0 -> 1 in def array_metadata(name: str, n_features: int, features_dtype: str = "float32", n_rows: int = 0) -> dict[str, Any]:': "chunks of one row are the shortest, too",
    "physics/fermi_integrals.py: 1 -> 2 in index = np.where(self._filled, np.arange(n, dtype=np.int32), np.int32(n - 1))": "what is summed less or more is empty",
    "traces/chunks.py: 1 -> 2 in return span.reshape(-1, *array.item_shape)[within - first]": "NumPy takes any negative length for what is left",
    "traces/schema.py: 100 -> 101 in COLUMN_CHUNKS, FEATURES_CHUNKS = 8, 100": "a file more",
    "traces/schema.py: False -> True in return json.dumps(data, allow_nan=False).encode()": "what is not finite is null before",
    "traces/schema.py: 8 -> 9 in while chunk_rows > 8 and chunk_rows * n_features * np.dtype(features_dtype).itemsize > FEATURES_CHUNK_BYTES:": "other files",
    "traces/schema.py: 1 -> 2 in FEATURES_CHUNK_BYTES = 1 << 19": "other files",
    "traces/writer.py: 0.0 -> 1.0 in self._flushed_s = 0.0": "set before it is read",
    "traces/writer.py: and -> or in if self._unwritten and self.store is not None:": "with nothing unwritten, the start is set anew before it is used",
    "traces/writer.py: + -> - in self._unwritten, self._start = self._unwritten[done:], self._start + done": "all rows of a flush are written, or none",
    "traces/schema.py: - -> + in helpers = [threading.Thread(target=work) for _ in range(min(len(descriptors), SYNC_THREADS) - 1)]": "two more threads",
    "traces/keys.py: 1 -> 2 in if len(steps) > 1 and (before is None or first > before) and (strides == strides[0]).all():": "two steps are a run by the other way, too",
}
"""Changes that nobody can see, as they are printed (module and what becomes of which text) -> why."""

SWAPS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
    ast.Add: ("-",),
    ast.Sub: ("+",),
    ast.Mult: ("/",),
    ast.Div: ("*",),
    ast.FloorDiv: ("/",),
    ast.Mod: ("*",),
    ast.Pow: ("*",),
    ast.And: ("or",),
    ast.Or: ("and",),
}
TEXT = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not",
    ast.In: "in", ast.NotIn: "not in", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.And: "and", ast.Or: "or",
}  # fmt: skip


class Change(NamedTuple):
    """Bytes ``start`` to ``stop`` of a module become ``new``."""

    path: Path
    start: int
    stop: int
    old: str
    new: str
    line: int
    context: str

    @property
    def name(self) -> str:
        """As in the list of equivalent changes: it holds when lines move."""
        return f"{self.path.relative_to(PACKAGE)}: {self.old} -> {self.new} in {self.context}"


def changes_of(path: Path) -> list[Change]:
    """Every change of a module; annotations, messages of errors and docstrings are left alone."""
    source = path.read_bytes()
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return finder.found


class _Finder(ast.NodeVisitor):
    def __init__(self, path: Path, source: bytes) -> None:
        self.path, self.source, self.found = path, source, list[Change]()
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """But for how a class is decorated."""
        for statement in node.body:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if not node.name.startswith("__repr"):
            self.visit(node.args)
            for statement in node.body:
                self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """A refusal that is not there."""
        if node.exc is not None:
            self._add(*self._span(node), "pass", node.lineno)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Call(self, node: ast.Call) -> None:
        """``strict`` of zip states what is so."""
        if isinstance(node.func, ast.Name) and node.func.id == "zip":
            for argument in node.args:
                self.visit(argument)
        else:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        terms = [node.left, *node.comparators]
        for left, operator, right in zip(terms, node.ops, terms[1:], strict=False):
            self._between(left, right, operator)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        words = any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right))
        if not words:
            self._between(node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, node.op)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            start = self._span(node)[0]
            self._add(start, start + (3 if isinstance(node.op, ast.Not) else 1), "", node.lineno)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(*self._span(node), str(not value), node.lineno)
        elif isinstance(value, int):
            self._add(*self._span(node), str(value + 1), node.lineno)
        elif isinstance(value, float):
            self._add(*self._span(node), repr(value * 1.5 if value else 1.0), node.lineno)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _between(self, left: ast.expr, right: ast.expr, operator: ast.AST) -> None:
        """The operator between two expressions, wherever brackets and blanks put it."""
        old = TEXT.get(type(operator))
        start, stop = self._span(left)[1], self._span(right)[0]
        between = self.source[start:stop].decode()
        if old is None or between.count(old) != 1:
            return
        at = start + between.index(old)
        for new in SWAPS[type(operator)]:
            self._add(at, at + len(old), new, left.end_lineno or left.lineno)

    def _add(self, start: int, stop: int, new: str, line: int) -> None:
        old = self.source[start:stop].decode()
        whole = self.source[self.starts[line - 1] : self.starts[line]].decode().strip()
        self.found.append(Change(self.path, start, stop, " ".join(old.split())[:60], new, line, whole))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"{', '.join(TESTS)} (default: all)")
    parser.add_argument("--changes", type=int, default=40, help="of each folder")
    parser.add_argument("--minutes", type=float, default=15.0, help="for each folder")
    parser.add_argument("--seed", type=int, default=1, help="another one draws other changes")
    parser.add_argument("--only", default="", metavar="MODULE:LINE", help="all changes of one line")
    args = parser.parse_args()
    if unknown := set(args.folders) - set(TESTS):
        parser.error(f"got {', '.join(sorted(unknown))}, expected of {', '.join(TESTS)}")
    for name in PRELOADED:
        importlib.import_module(name)
    found = wanted = 0
    for folder in args.folders or TESTS:
        results = list(run(folder, args.changes, 60 * args.minutes, args.seed, args.only))
        mine = sum(killed for _, killed in results)
        print(f"{folder}: {mine} of {len(results)} changes found by the tests", flush=True)
        found, wanted = found + mine, wanted + len(results)
    share = found / max(wanted, 1)
    print(f"all: {found} of {wanted}, {100 * share:.0f} % (at least {100 * WANTED:.0f} % wanted)")
    sys.exit(share < WANTED)


def run(folder: str, n: int, seconds: float, seed: int, only: str) -> Iterator[tuple[Change, bool]]:
    """Changes that are not equivalent, with whether the tests found them."""
    modules = [path for path in sorted((PACKAGE / folder).glob("*.py")) if path.name not in NOT_LOADED]
    candidates = [change for path in modules for change in changes_of(path)]
    print(f"{folder}: {len(candidates)} possible changes of {len(modules)} modules", flush=True)
    if only:
        chosen = [c for c in candidates if f"{c.path.name}:{c.line}" == only]
    else:
        chosen = random.Random(f"{seed} {folder}").sample(candidates, min(n, len(candidates)))
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "root"
        _copy(copy)
        usual, status = _test(folder, "", copy, limit=3600.0)
        if status != 0:
            sys.exit(f"{folder}: the tests fail without a change; see above")
        for change in chosen:
            if change.name in EQUIVALENT:
                continue
            if time.monotonic() > deadline:
                print(f"{folder}: time is over", flush=True)
                return
            target = copy / change.path.relative_to(ROOT)
            source = target.read_bytes()
            target.write_bytes(source[: change.start] + change.new.encode() + source[change.stop :])
            try:
                took, status = _test(folder, change.path.stem, copy, limit=60.0 + 2 * usual)
            finally:
                target.write_bytes(source)
            print(
                f"{'found' if status else 'SURVIVES'} {took:4.0f} s  {change.path.name}:{change.line}  {change.name}",
                flush=True,
            )
            yield change, status != 0


def _copy(root: Path) -> None:
    """The repository as it is: the package (but its large files) and the tests by copy, the rest by link."""
    root.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("src", "tests", ".git"):
            (root / path.name).symlink_to(path)
    shutil.copytree(ROOT / "tests", root / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE, root / "src" / "petdos_md", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    (root / "src" / "petdos_md" / "models" / "shipped").symlink_to(PACKAGE / "models" / "shipped")


ORDER = """
import json, os, pathlib
path, module = pathlib.Path(__file__).with_name("durations.json"), os.environ["MUTANT_OF"]
seconds = json.loads(path.read_text()) if path.exists() else {}

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: seconds.get(item.nodeid, 0.0) / (20 if f"test_{module}" in item.nodeid else 1))

def pytest_runtest_logreport(report):
    seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration

def pytest_sessionfinish():
    if not module:
        path.write_text(json.dumps(seconds))
"""
"""A plugin: quick tests first, and those of the module at hand, so that most changes are found within seconds."""


def _test(folder: str, module: str, root: Path, limit: float) -> tuple[float, int]:
    """Seconds and status of the tests of a folder; running for ever is a failure, too.

    In a forked process, which has imported what takes long; the package itself is imported there.
    """
    (root / "mutant_order.py").write_text(ORDER)
    options = ["-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-p", "mutant_order"]
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setpgid(0, 0)
            os.chdir(root)
            with open(root / "said", "wb") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            os.environ |= {
                "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
                "MUTANT_OF": OWN_TESTS.get(module, module),
            }
            sys.path[:0] = [str(root / "src"), str(root)]
            status = int(importlib.import_module("pytest").main([*options, *TESTS[folder]]))
        finally:
            os._exit(status)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - start > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return time.monotonic() - start, 1
        time.sleep(0.05)
    code = os.waitstatus_to_exitcode(status)
    if code != 0 and not module:
        print((root / "said").read_text(errors="replace")[-3000:])
    return time.monotonic() - start, code


if __name__ == "__main__":
    main()
