"""Draws docs/images/folders.svg: the folders of the package in the order of imports, with their modules and who imports whom.

    python docs/folders.py          (needs grimp, which comes with import-linter)

Read from the code at each call: modules, what each folder says it is for, and the number of imports between folders.
"""

from __future__ import annotations

import ast
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "petdos_md"
ORDER = ("cli", "results", "validation", "engines", "analysis", "traces", "models", "physics", "base")
"""From the top; a folder imports only what stands below it."""
COLORS = {
    "engines": ("#e8eef6", "#30507a"),
    "models": ("#fdf1dc", "#a8752a"),
    "traces": ("#e9f4e6", "#4d8a3d"),
    "results": ("#f3e8f5", "#7c4a86"),
}
WIDTH, LEFT, BOX, ROW, GAP, TOP = 980, 30, 640, 88, 12, 64
LINE = 78
"""Characters of a line of text in a box."""


def main() -> None:
    """Write the file."""
    rows = {name: TOP + i * (ROW + GAP) for i, name in enumerate(ORDER)}
    height = TOP + len(ORDER) * (ROW + GAP) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" '
        'font-size="13" fill="#222">',
        "<title>The folders of petdos_md: each imports only what stands below it</title>",
        '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 10 5 0 10z" fill="#666"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-size="17" font-weight="bold">src/petdos_md: a folder imports only what stands below it</text>',
        f'<text x="{LEFT}" y="48" fill="#555">engines make samples of structures with models; traces keep them; analysis and results read '
        "them</text>",
        *_arrows(rows),
    ]
    for name, y in rows.items():
        parts += _box(name, y)
    parts += [
        f'<text x="{LEFT}" y="{height - 14}" fill="#555">Entry points for users: petdos_md, petdos_md.ase, petdos_md.lammps, petdos_md.ipi. '
        "Beside the package: lammps_plugin (C++), ipi_drivers.</text>",
        "</svg>",
    ]
    path = ROOT / "docs" / "images" / "folders.svg"
    path.write_text("\n".join(parts) + "\n")
    print(path.relative_to(ROOT))


def _box(name: str, y: int) -> list[str]:
    fill, stroke = COLORS.get(name, ("#f4f4f4", "#777"))
    files = sorted(path for path in (PACKAGE / name).rglob("*.py"))
    modules = [path.relative_to(PACKAGE / name).with_suffix("") for path in files if path.name != "__init__.py"]
    names = sorted({path.name if len(path.parts) == 1 else f"{path.parts[0]}/" for path in modules})
    about = (ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or "").split("\n\n")[0]
    about = about.replace("``", "").replace("\n", " ")
    text = [
        f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="{ROW}" rx="6" fill="{fill}" stroke="{stroke}" stroke-width="1.4"/>',
        f'<text x="{LEFT + 12}" y="{y + 21}" font-size="15" font-weight="bold">{name}/</text>',
        f'<text x="{LEFT + BOX - 12}" y="{y + 21}" text-anchor="end" fill="#555">{len(modules)} modules</text>',
    ]
    for i, line in enumerate(_wrapped(about.split(" "), LINE + 26, 1)):
        text.append(f'<text x="{LEFT + 12}" y="{y + 39 + 15 * i}" font-size="12">{escape(line)}</text>')
    for i, line in enumerate(_wrapped(names, LINE + 20, 3)):
        text.append(
            f'<text x="{LEFT + 12}" y="{y + 54 + 14 * i}" font-size="10.5" fill="#444" font-family="monospace">{escape(line)}</text>'
        )
    return text


def _wrapped(words: list[str], width: int, most: int) -> list[str]:
    """At most so many lines; what does not fit ends in dots."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            if len(lines) == most:
                lines[-1] += " ..."
                break
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _arrows(rows: dict[str, int]) -> list[str]:
    """One arc for each pair of folders of which one imports the other, as wide as there are imports."""
    graph = grimp.build_graph("petdos_md", cache_dir=None)
    counts: dict[tuple[str, str], int] = {}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = tuple(full.split(".")[1] if "." in full else "" for full in (module, imported))
            if pair[0] != pair[1] and set(pair) <= set(rows):
                counts[pair] = counts.get(pair, 0) + 1
    arcs = []
    for (upper, lower), number in sorted(
        counts.items(), key=lambda item: (rows[item[0][1]] - rows[item[0][0]], item[0])
    ):
        start, end = rows[upper] + ROW * 0.62, rows[lower] + ROW * 0.3
        reach = LEFT + BOX + 26 + 0.36 * (end - start)
        edge = LEFT + BOX
        arcs.append(
            f'<path d="M{edge} {start:.0f} C{reach:.0f} {start:.0f} {reach:.0f} {end:.0f} {edge + 2} {end:.0f}" fill="none" '
            f'stroke="#666" stroke-opacity="0.55" stroke-width="{0.7 + 0.09 * number:.2f}" marker-end="url(#a)"/>'
        )
    return arcs


if __name__ == "__main__":
    main()
