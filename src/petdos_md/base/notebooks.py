"""What a notebook shows of an object: a small table.

>>> print(html_facts("Trace", {"path": "<run>"}))
<table><caption>Trace</caption><tr><th style="text-align:left">path</th><td style="text-align:left">&lt;run&gt;</td></tr></table>
"""

from __future__ import annotations

import html
from collections.abc import Mapping

_LEFT = ' style="text-align:left"'


def html_facts(title: str, facts: Mapping[str, str]) -> str:
    """A heading with names and values below it."""
    rows = "".join(
        f"<tr><th{_LEFT}>{html.escape(name)}</th><td{_LEFT}>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
