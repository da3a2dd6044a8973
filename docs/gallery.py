"""Run the examples and make pages of them: the program, what it printed and the figures it drew.

python docs/gallery.py            # runs what is new or has changed since, writes docs/_gallery; minutes the first time
python docs/gallery.py --force    # runs all of them again

Each example runs in a process and an empty folder of its own. What a page shows is what that process printed and wrote.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "docs" / "_gallery"
EXAMPLES = {
    "01_observe": ("Observe dynamics in ASE", []),
    "02_any_potential": ("Any potential, until the error is small enough", []),
    "03_temperatures": ("Several temperatures, restartable", []),
    "04_trajectory": ("A trajectory that exists already", []),
    "05_electron_temperature": ("Hot electrons in a cold lattice", []),
    "06_silicon_melting": ("Silicon across melting", ["--quick"]),
    "07_heat_capacity_vs_dft": ("Heat capacity against DFT", ["--quick"]),
    "08_side_by_side": ("Three phases side by side", ["--quick"]),
}
LONG = {  # pages on the same examples at full length
    "06_silicon_melting": "../examples/silicon-melting.md",
    "07_heat_capacity_vs_dft": "../examples/heat-capacity-vs-dft.md",
    "08_side_by_side": "../examples/side-by-side.md",
}
READMES = {
    "ipi": "../../examples/ipi/README.md",
    "training": "../../examples/training/README.md",
    "cases": "../../examples/cases/README.md",
}


def key_of(script: Path, options: list[str]) -> str:
    """What the output of an example belongs to: its text, its options and the version of the package."""
    return hashlib.sha256(f"{version('petdos-md')} {options}\n{script.read_text()}".encode()).hexdigest()


def run(name: str, options: list[str], key: str) -> None:
    """Run an example and keep its output and figures as ``NAME.json`` and ``NAME-*.png``; SystemExit if it fails."""
    script = ROOT / "examples" / f"{name}.py"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(script), *options],
            cwd=folder,
            env=os.environ | {"MPLBACKEND": "agg", "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"examples/{name}.py failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        for old in GALLERY.glob(f"{name}-*.png"):
            old.unlink()
        figures = []
        for figure in sorted(Path(folder).rglob("*.png")):
            figures.append(f"{name}-{figure.stem}.png")
            shutil.copyfile(figure, GALLERY / figures[-1])
    (GALLERY / f"{name}.json").write_text(json.dumps({"key": key, "stdout": done.stdout, "figures": figures}))


def page(name: str, title: str, options: list[str]) -> str:
    """The page of an example, in MyST Markdown."""
    kept = json.loads((GALLERY / f"{name}.json").read_text())
    source = (ROOT / "examples" / f"{name}.py").read_text()
    purpose = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
    purpose = purpose.removeprefix(f"{title}: ").strip()
    purpose = purpose[0].upper() + purpose[1:]
    command = " ".join(["python", f"examples/{name}.py", *options])
    at_length = f"\nAt full length: [{title}]({LONG[name]}).\n" if name in LONG else ""
    figures = "\n".join(f"![Figure {figure} that {name}.py writes]({figure})\n" for figure in kept["figures"])
    return f"""# {title}

{purpose}
{at_length}
```{{literalinclude}} ../../examples/{name}.py
:language: python
```

## Output

    $ {command}

```text
{kept["stdout"].rstrip()}
```

{figures}"""


def decks() -> str:
    """A page of the LAMMPS decks, each under its own heading."""
    parts = [
        "# LAMMPS decks\n\nRun each in a folder of your own: `lmp -in DECK`. [What the commands mean](../lammps.md).\n"
    ]
    for deck in sorted((ROOT / "examples" / "lammps").iterdir()):
        if deck.suffix in (".in", ".py"):
            language = "python" if deck.suffix == ".py" else "text"
            parts.append(
                f"## {deck.name}\n\n```{{literalinclude}} ../../examples/lammps/{deck.name}\n:language: {language}\n```\n"
            )
    return "\n".join(parts)


def readme(folder: str) -> str:
    """The README of a folder of examples as a page: links to pages of the documentation lead there."""
    text = (ROOT / "examples" / folder / "README.md").read_text()
    text = re.sub(r"\]\(\.\./\.\./docs/", "](../", text)
    text = re.sub(r"\]\((?!https?:|#|\.\./)([\w./-]+)\)", rf"](../../examples/{folder}/\1)", text)
    return re.sub(rf"\]\(\.\./({'|'.join(READMES)})/README\.md\)", r"](\1.md)", text)


def index() -> str:
    """The first page: all pages, and below a figure of each program that draws some, two in a row."""
    pages = "\n".join([*EXAMPLES, "lammps", *READMES])
    cells = []
    for name, (title, _) in EXAMPLES.items():
        if figures := json.loads((GALLERY / f"{name}.json").read_text())["figures"]:
            cells.append((f"[![{title}]({figures[0]})]({name}.md)", f"[{title}]({name}.md)"))
    cells += [("", "")] * (len(cells) % 2)
    rows = [
        f"| {left} | {right} |" for i in range(0, len(cells), 2) for left, right in zip(*cells[i : i + 2], strict=True)
    ]
    return f"""# Gallery

The programs of `examples/`, run as they are when these pages are made, with the shipped model on one machine; the last three in their short form.

```{{toctree}}
:maxdepth: 1

{pages}
```

| | |
|---|---|
{chr(10).join(rows)}
"""


def write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text() != text:  # an unchanged page is not built again
        file.write_text(text)


def main() -> None:
    """Run stale examples, then write all pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--force", action="store_true", help="run every example again")
    force = parser.parse_args().force
    GALLERY.mkdir(parents=True, exist_ok=True)
    for name, (title, options) in EXAMPLES.items():
        key = key_of(ROOT / "examples" / f"{name}.py", options)
        kept = GALLERY / f"{name}.json"
        if force or not kept.exists() or json.loads(kept.read_text())["key"] != key:
            start = time.perf_counter()
            print(f"examples/{name}.py ...", flush=True)
            run(name, options, key)
            print(f"    {time.perf_counter() - start:.0f} s", flush=True)
        write(GALLERY / f"{name}.md", page(name, title, options))
    write(GALLERY / "lammps.md", decks())
    for folder in READMES:
        write(GALLERY / f"{folder}.md", readme(folder))
    write(GALLERY / "index.md", index())


if __name__ == "__main__":
    main()
