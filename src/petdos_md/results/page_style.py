"""The style of pages that the package writes: one column, light and dark, print.

>>> "prefers-color-scheme: dark" in CSS and "@media print" in CSS
True
"""

from __future__ import annotations

import html
import re

CSS = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --back: #ffffff; --panel: #f6f8fa; --link: #0b5394; --warn: #9a6700; --warnback: #fff8e5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b3; --line: #353c45; --back: #14181d; --panel: #1d232a; --link: #79b8ff; --warn: #e3b341; --warnback: #2a2413; }
  figure svg { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .7rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.3rem 0 .3rem; overflow-wrap: anywhere; }
header p, .small, figcaption, .what { color: var(--soft); }
header p { margin: 0 0 1rem; }
.small, figcaption { font-size: .87rem; }
.what { font-size: .82rem; }
.what::before { content: "\\2013\\00a0"; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; line-height: 1.4; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.numbers { width: 100%; font-size: .86rem; }
.numbers th, .numbers td { text-align: right; padding: .32rem .45rem; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: bottom; }
.numbers thead th { border-bottom: 2px solid var(--line); font-weight: 600; line-height: 1.25; }
.unit { font-weight: 400; color: var(--soft); font-size: .85em; }
table.facts { width: 100%; font-size: .86rem; table-layout: fixed; }
.facts th { width: 11rem; text-align: left; font-weight: 500; color: var(--soft); vertical-align: top; padding: .15rem .6rem .15rem 0; }
.facts td { overflow-wrap: anywhere; padding: .15rem 0; }
figure { margin: 1.6rem 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; max-height: 34rem; display: block; }
.notes { list-style: none; padding: 0; }
.notes li { background: var(--warnback); border-left: 4px solid var(--warn); border-radius: 0 6px 6px 0; padding: .5rem .8rem; margin: .5rem 0; font-size: .92rem; }
sub { line-height: 0; }
ol { padding-left: 1.5rem; }
ol li { margin: .25rem 0; }
details summary { cursor: pointer; color: var(--link); }
@media print {
  :root { --ink: #000; --soft: #444; --line: #bbb; --back: #fff; --panel: #fff; --link: #000; --warn: #777; --warnback: #fff; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  figure svg { filter: none; max-height: 11cm; }
  details:not([open]) { display: none; }
  .wide { overflow: visible; }
  table.numbers { font-size: 8pt; }
  .numbers th, .numbers td { padding: .25rem .25rem; }
  h2, h3 { break-after: avoid; }
  tr, .notes li { break-inside: avoid; }
  @page { margin: 18mm 16mm; }
}
"""


def page_start(title: str, *more: str) -> str:
    """A page up to the beginning of its content.

    :param title: plain text
    :param more: elements of the head
    """
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            *more,
            f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main>",
        ]
    )


def in_html(text: str) -> str:
    """Plain text for a page, ``C_el``, ``E_F``, ``T_e`` and ``k_B`` with their indices below the line."""
    return re.sub(
        r"\b(C_el|E_F|T_e|k_B)\b", lambda match: match[0].replace("_", "<sub>", 1) + "</sub>", html.escape(text)
    )
