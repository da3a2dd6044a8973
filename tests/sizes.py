"""Print what is larger than it should be: modules, functions, signatures. Exits 1 if there is one without a reason below.

    python tests/sizes.py

Counted in Python and C++: lines of a module, lines of a function from its name to its end (docstring and comments included),
parameters of a function without ``self`` and ``cls``. Examples and benchmarks are listed, but do not fail.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
HELD = ("src", "lammps_plugin", "ipi_drivers")
LISTED = ("examples", "benchmarks")
LIMITS = {"lines of a module": 400, "lines of a function": 60, "parameters": 8}
EXCEPTIONS: dict[str, str] = {}
"""``path`` or ``path: function`` -> why it may be larger."""


class Large(NamedTuple):
    """Something over a limit."""

    path: str
    function: str
    """Empty for a module."""
    what: str
    size: int

    @property
    def name(self) -> str:
        """As in the lists of exceptions."""
        return f"{self.path}: {self.function}" if self.function else self.path


class Function(NamedTuple):
    """A definition in a source file."""

    name: str
    lines: int
    parameters: int


def oversized(folders: tuple[str, ...], root: Path = ROOT) -> list[Large]:
    """Everything over a limit in some folders, the largest first."""
    found = []
    for path in sorted(p for folder in folders for p in (root / folder).rglob("*")):
        if path.suffix not in FUNCTIONS:
            continue
        text, name = path.read_text(), str(path.relative_to(root))
        sizes = [("", "lines of a module", len(text.splitlines()))]
        for function in FUNCTIONS[path.suffix](text):
            sizes += [(function.name, "lines of a function", function.lines)]
            sizes += [(function.name, "parameters", function.parameters)]
        found += [Large(name, function, what, size) for function, what, size in sizes if size > LIMITS[what]]
    return sorted(found, key=lambda large: (large.what, -large.size, large.name))


def python_functions(text: str) -> Iterator[Function]:
    """
    >>> list(python_functions("class A:\\n    def f(self, a, *, b): return 1\\n"))
    [Function(name='A.f', lines=1, parameters=2)]
    """
    yield from _python_functions(ast.parse(text), "")


def cpp_functions(text: str) -> Iterator[Function]:
    """Definitions outside of other functions; a brace that opens after a parameter list begins one.

    >>> list(cpp_functions("namespace n {\\nint A::f(std::map<int, int> a, int b) const\\n{\\n  return 1;\\n}\\n}\\n"))
    [Function(name='A::f', lines=4, parameters=2)]
    >>> list(cpp_functions("A::A(int a) :\\n  b{a}, c(1)\\n{\\n}\\nstruct B { int x = 0; };\\n"))
    [Function(name='A::A', lines=4, parameters=1)]
    """
    text = _without_comments_and_strings(text)
    position = header = 0
    while position < len(text):
        character = text[position]
        if character in ";}":
            header = position + 1
        elif character == "{":
            before = text[header:position]
            if re.search(r"\)\s*:[^:].*[\w>]\s*$", before, re.S):  # a member that is initialized before the body
                position = _closing(text, position) + 1
                continue
            signature = _signature(before)
            if signature is not None:
                name, parameters = signature
                end = _closing(text, position)
                start = header + len(before) - len(before.lstrip())
                yield Function(name, text.count("\n", start, end) + 1, parameters)
                position = end
            header = position + 1
        position += 1


FUNCTIONS = {".py": python_functions, ".cpp": cpp_functions, ".h": cpp_functions}


def _python_functions(node: ast.AST, inside: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        name = (
            f"{inside}.{child.name}".lstrip(".") if hasattr(child, "name") and isinstance(child, ast.stmt) else inside
        )
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            a = child.args
            given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            n = sum(p.arg not in ("self", "cls") for p in given)
            yield Function(name, (child.end_lineno or child.lineno) - child.lineno + 1, n)
        yield from _python_functions(child, name)


def _without_comments_and_strings(text: str) -> str:
    """Lines stay where they are."""
    pattern = (
        r'R"(\w*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*'
    )
    return re.sub(pattern, lambda m: "\n" * m[0].count("\n"), text, flags=re.S | re.M)


def _signature(header: str) -> tuple[str, int] | None:
    """Name and number of parameters if a brace after this opens a function."""
    header = re.sub(r"__attribute__\s*\(\(.*?\){2,}", "", header)
    header = re.sub(r"^\s*(?:template\s*<[^{]*?>\s*(?=[\w:]))?", "", header)
    found = re.search(r"([\w:~]+|operator\s*\S+)\s*\(", header)
    if found is None or re.match(r"(?:namespace|class|struct|enum|union|extern)\b(?!.*\()", header, re.S):
        return None
    if re.search(r"=\s*$|^[^(]*=", header) and "operator" not in header:
        return None  # an initializer or a lambda in one
    inside = header[found.end() : _closing(header, found.end() - 1, "()")]
    return found[1], _n_parameters(inside)


def _n_parameters(text: str) -> int:
    """Commas within brackets are no parameters."""
    while re.search(r"<[^<>]*>|\([^()]*\)|\{[^{}]*\}", text):
        text = re.sub(r"<[^<>]*>|\([^()]*\)|\{[^{}]*\}", "", text)
    return text.count(",") + 1 if text.strip() not in ("", "void") else 0


def _closing(text: str, opening: int, pair: str = "{}") -> int:
    """Where the bracket at ``opening`` is closed."""
    depth = 0
    for match in re.compile("[" + re.escape(pair) + "]").finditer(text, opening):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a bracket at {opening} is not closed")


def main() -> int:
    """Print the table; 1 if something is too large without a reason."""
    held = oversized(HELD)
    excused = EXCEPTIONS.keys()
    for large in held:
        note = EXCEPTIONS.get(large.name) or "TOO LARGE"
        print(f"{large.size:5d} {large.what:20s} {large.name} ({note})")
    for large in oversized(LISTED):
        print(f"{large.size:5d} {large.what:20s} {large.name} (not held to the limits)")
    unused = sorted(excused - {large.name for large in held})
    for name in unused:
        print(f"no longer too large, take it off the lists in {Path(__file__).name}: {name}")
    bad = [large for large in held if large.name not in excused]
    print(f"{len(bad)} over the limits ({', '.join(f'{n} {what}' for what, n in LIMITS.items())}), {len(held)} in all")
    return 1 if bad or unused else 0


if __name__ == "__main__":
    sys.exit(main())
