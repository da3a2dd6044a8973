"""A result as one page, ``report.html`` and ``report.md``: table, figures, warnings, a methods paragraph, references, provenance.

>>> content = PageContent.of(result, provenance(result))                   # doctest: +SKIP
>>> Path("report.html").write_text(html_page(content, figures))            # doctest: +SKIP

The page needs no other file and no network. It follows the light or dark setting of the browser and prints well.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..base.sample import KINDS
from ..physics.thermo import GAP_THRESHOLD
from .citations import Citation, citations
from .methods import in_words, methods_paragraph
from .page_style import in_html, page_start
from .tables import Table, result_table

MOST_TRACES = 20
"""Traces that the page describes; ``provenance.json`` has the rest."""
MOST_LETTERS = 1000
"""Of the command, whose middle is left out beyond."""

_LEVELS = f"mu and E_F are on the energy axis of the model, whose zero has no meaning; the gap is where the DOS is below {GAP_THRESHOLD:g} states/eV/atom."


@dataclass(frozen=True)
class PageContent:
    """What the page says, without its form.

    :param facts: headings and, under each, names with values
    """

    title: str
    subtitle: str
    table: Table
    notes: list[str]
    methods: str
    references: list[Citation]
    facts: dict[str, list[tuple[str, str]]]

    @classmethod
    def of(
        cls, result: xr.Dataset, record: dict[str, Any], normalization: str | None = None, reweighted: bool = False
    ) -> PageContent:
        """Gather it.

        :param result: of :func:`petdos_md.analyze`, per structure
        :param record: its provenance
        :param normalization: of the table, see :func:`petdos_md.results.tables.result_table`; k_B per atom if None
        :param reweighted: whether MBAR was used besides
        """
        engines = {name for trace in record["traces"] for name in str(trace.get("engine", "")).split(", ")}
        method = str(result.attrs.get("error_method", "autocorrelation"))
        temperatures = in_words(result["temperature"].values)
        return cls(
            title=f"Electronic structure of {_formula(record) or 'the system'}",
            subtitle=f"Thermal averages at {temperatures}, {_n_frames(result)} frames, model {record['model']['name']}",
            table=result_table(result, normalization or "kB"),
            notes=record["notes"],
            methods=methods_paragraph(result, record),
            references=citations(engines, method, members="member" in result.sizes, reweighted=reweighted),
            facts=_facts(record),
        )


def html_page(content: PageContent, figures: Mapping[str, str]) -> str:
    """The whole page.

    :param figures: caption -> SVG
    """
    numbers = {citation.key: i for i, citation in enumerate(content.references, start=1)}
    esc = html.escape
    parts = [
        page_start(content.title),
        f"<header><h1>{_formula_html(content.title)}</h1><p>{esc(content.subtitle)}</p></header>",
        '<section id="results"><h2>Results</h2>',
        _table_html(content.table),
        "<p class='small'>Errors: value ± model ± sampling, one standard deviation each. The model error is the spread over the ensemble of the "
        f"model and does not shrink with longer runs; the sampling error is that of the finite simulation. {in_html(_LEVELS)}</p>",
        *(f"<figure>{svg}<figcaption>{esc(caption)}</figcaption></figure>" for caption, svg in figures.items()),
        "</section>",
    ]
    if content.notes:
        items = "".join(f"<li>{in_html(note)}</li>" for note in content.notes)
        parts.append(f'<section id="warnings"><h2>To beware of</h2><ul class="notes">{items}</ul></section>')
    entries = "".join(
        f'<li id="ref{i}">{esc(c.short())}{_link(c)} <span class="what">{esc(c.what)}</span></li>'
        for i, c in enumerate(content.references, start=1)
    )
    bibtex = esc("\n\n".join(c.bibtex() for c in content.references))
    parts += [
        f'<section id="methods"><h2>Methods</h2><p>{_cited(esc(content.methods), numbers)}</p></section>',
        f'<section id="references"><h2>References</h2><ol>{entries}</ol>'
        f"<details><summary>BibTeX</summary><pre>{bibtex}</pre></details></section>",
        '<section id="provenance"><h2>Provenance</h2>',
    ]
    for heading, facts in content.facts.items():
        rows = "".join(f"<tr><th>{esc(name)}</th><td>{esc(value)}</td></tr>" for name, value in facts)
        parts.append(f'<h3>{esc(heading)}</h3><table class="facts">{rows}</table>')
    parts.append("</section></main></body></html>\n")
    return "\n".join(parts)


def markdown_page(content: PageContent, figures: Mapping[str, str]) -> str:
    """The same as Markdown.

    :param figures: caption -> name of a file beside the page
    """
    numbers = {citation.key: i for i, citation in enumerate(content.references, start=1)}
    lines = [f"# {content.title}", "", content.subtitle + ".", "", "## Results", "", *content.table.markdown(), ""]
    lines += [f"Errors: value ± model ± sampling, one standard deviation each. {_LEVELS}", ""]
    for caption, name in figures.items():
        lines += [f"![{caption}]({name})", ""]
    if content.notes:
        lines += ["## To beware of", "", *(f"- {note}" for note in content.notes), ""]
    lines += ["## Methods", "", _numbered(content.methods, numbers), "", "## References", ""]
    lines += [f"{i}. {c.short()}{_doi(c)}" for i, c in enumerate(content.references, start=1)]
    lines += [
        "",
        "```bibtex",
        *"\n\n".join(c.bibtex() for c in content.references).splitlines(),
        "```",
        "",
        "## Provenance",
        "",
    ]
    for heading, facts in content.facts.items():
        lines += [f"### {heading}", "", *(f"- {name}: {value}" for name, value in facts), ""]
    return "\n".join(lines)


def _facts(record: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    model, settings = record["model"], record["settings"]
    facts = {
        "Model": [
            ("name", str(model["name"])),
            ("readout", KINDS.get(str(model["kind"]), str(model["kind"]))),
            ("file", str(model["path"])),
            ("fingerprint", str(model["fingerprint"])),
            *((f"SHA-256 of {name}", value) for name, value in (model["sha256"] or {}).items()),
            *((f"{key} of the readout in its place", str(value)) for key, value in model.get("readout", {}).items()),
        ]
    }
    shown = record["traces"] if len(record["traces"]) <= MOST_TRACES else record["traces"][: MOST_TRACES - 1]
    for trace in shown:
        if trace["sha256"] is None:
            facts[f"Trace {trace['path']}"] = [("missing", trace["missing"])]
            continue
        known = trace["metadata"]
        facts[f"Trace {trace['path']}"] = [
            ("samples", f"{trace['n_samples']}, {trace['n_skipped']} skipped"),
            ("engine", ", ".join([str(trace["engine"]), *(f"{k} {v}" for k, v in trace["versions"].items())])),
            ("time step", "not known" if trace["timestep_fs"] is None else f"{trace['timestep_fs']:g} fs"),
            *((name, _shown(value)) for name, value in known.items()),
            ("made", str(trace["created"])),
            (f"SHA-256 of {trace['sha256_of']}", trace["sha256"]),
        ]
    if len(shown) < len(record["traces"]):
        facts[f"{len(record['traces']) - len(shown)} more traces"] = [("listed in", "provenance.json")]
    facts["Analysis"] = [
        *((name.replace("_", " "), _shown(value)) for name, value in settings.items()),
        ("versions", ", ".join(record["versions"])),
        ("command", _shortened(" ".join(record["command"]))),
        ("platform", record["platform"]),
        ("made", record["dateCreated"]),
    ]
    return facts


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS // 2]} ... {text[-MOST_LETTERS // 2 :]}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_shown(x) for x in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _formula(record: dict[str, Any]) -> str:
    formulas = {str(trace["metadata"].get("formula", "")) for trace in record["traces"] if trace["sha256"]}
    return formulas.pop() if len(formulas) == 1 else ""


def _formula_html(title: str) -> str:
    return re.sub(r"(?<=[A-Za-z])(\d+)", r"<sub>\1</sub>", html.escape(title))


def _table_html(table: Table) -> str:
    head = "".join(
        f"<th>{in_html(name)}<br><span class='unit'>{in_html(unit)}</span></th>"
        for name, unit in zip(table.names, table.units, strict=True)
    )
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="wide"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cited(text: str, numbers: Mapping[str, int]) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)

    def links(match: re.Match[str]) -> str:
        found = [numbers[key.strip().lstrip("@")] for key in match.group(1).split(",")]
        return "[" + ", ".join(f'<a href="#ref{i}">{i}</a>' for i in found) + "]"

    return re.sub(r"\[(@[^\]]+)\]", links, text)


def _numbered(text: str, numbers: Mapping[str, int]) -> str:
    return re.sub(
        r"\[(@[^\]]+)\]",
        lambda match: "[" + ", ".join(str(numbers[key.strip().lstrip("@")]) for key in match.group(1).split(",")) + "]",
        text,
    )


def _doi(citation: Citation) -> str:
    doi = citation.fields.get("doi")
    return f", https://doi.org/{doi}" if doi else ""


def _link(citation: Citation) -> str:
    doi = citation.fields.get("doi")
    return f', <a href="https://doi.org/{doi}">doi:{doi}</a>' if doi else ""


def _n_frames(result: xr.Dataset) -> int:
    """Frames in all; those of one ensemble count once, however many temperatures of the electrons there are."""
    _, first = np.unique(result["ensemble_temperature"].values, return_index=True)
    return int(result["n_samples"].values[first].sum())
