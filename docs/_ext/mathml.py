"""Formulas as MathML, made when the pages are built: browsers set them without a script and without the network.

In Markdown, LaTeX stands between dollars or in a block of three backquotes and ``{math}``. In other text, symbols such as C_el and W/m^3 get their
subscripts and superscripts; what is marked as code stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

GREEK = {"mu": "μ", "phi": "φ"}
SYMBOL = re.compile(
    r"(?<![\w/.'-])(?P<base>[A-Z]|[gknw]|mu)_(?P<low>el|at|opt|min|max|[eiknt]|[ABF]|\d)(?!\w)"
    r"|(?<=[\w)])\^(?P<high>-?\d+(?:\.5)?)(?!\w)"
    r"|(?<![\w/.'-])(?P<greek>mu|phi)(?![\w/'])"
    r"|(?<!\w)int(?:_\{?(?P<lower>[^{}\s^]+)\}?\^\{?(?P<upper>[^{}\s]+)\}?)?(?= [gh(]\b| \()"
)
"""A base with a short index, a power, a Greek letter by its name, an integral over g, h or something in brackets."""


class Symbols(SphinxPostTransform):
    """Subscripts, superscripts and Greek letters in text that is not code."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if SYMBOL.search(text) and not _is_code(text):
                text.parent.replace(text, _parts(str(text)))


def inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), display="block")}</div>\n')
    raise nodes.SkipNode


def mathml(latex: str, display: str = "inline") -> str:
    """MathML of a formula. Single upright letters are slanted by latex2mathml, and its primes are raised twice."""
    text = convert(latex, display=display)
    text = re.sub(r"<mi>(&#x000[0-9A-F]{2};)</mi>", r'<mi mathvariant="normal">\1</mi>', text)
    prime = r'<mrow>\1<mo lspace="0" rspace="0">\2</mo></mrow>'
    return re.sub(r"<msup>(<mi>[^<]*</mi>)<m[io]>(&#x0203[23];)</m[io]></msup>", prime, text)


def _is_code(text: nodes.Text) -> bool:
    code = (
        nodes.literal,
        nodes.FixedTextElement,
        nodes.math,
        nodes.raw,
        nodes.comment,
        addnodes.desc_signature,
        addnodes.download_reference,
    )
    node = text.parent
    while node is not None and not isinstance(node, code):
        node = node.parent
    return node is not None


def _parts(text: str) -> list[nodes.Node]:
    parts: list[nodes.Node] = []
    end = 0
    for match in SYMBOL.finditer(text):
        parts.append(nodes.Text(text[end : match.start()]))
        end = match.end()
        if match["high"]:
            parts.append(nodes.superscript(text=match["high"].replace("-", "\N{MINUS SIGN}")))
        elif match["greek"]:
            parts.append(nodes.Text(GREEK[match["greek"]]))
        elif match["base"] is None:
            parts.append(nodes.Text("∫"))
            for limit, kind in ((match["lower"], nodes.subscript), (match["upper"], nodes.superscript)):
                if limit:
                    parts.append(kind("", "", *_parts(limit.replace("inf", "∞").replace("-", "\N{MINUS SIGN}"))))
        else:
            base = GREEK.get(match["base"], match["base"])
            parts += [nodes.Text(base), nodes.subscript(text=match["low"])]
    return [*parts, nodes.Text(text[end:])]


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    app.add_post_transform(Symbols)
    return {"parallel_read_safe": True}
