"""Parts in, one self-contained HTML page out: its style, light or dark as the reader's screen, and its tables."""

import html
from collections.abc import Iterable, Sequence

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --mark: #10b98126; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.note { opacity: .7; font-size: .85rem; } .warning { border-left: 4px solid #f59e0b; padding: .4rem .8rem; }
.verdict { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.verdict div { border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem; }
.verdict b { display: block; font-size: 1.35rem; } .verdict span { opacity: .7; font-size: .85rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .5rem .6rem .2rem; min-width: 0; }
figcaption { font-size: .88rem; overflow-wrap: anywhere; } figure svg { width: 100%; height: auto; display: block; }
pre { background: var(--soft); padding: .8rem; border-radius: 8px; overflow-x: auto; white-space: pre-wrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; } th { font-weight: 600; }
tr { border-bottom: 1px solid var(--soft); } tr.set td { font-weight: 600; } tr.free { opacity: .6; }
.numbers td + td, .numbers th + th { text-align: right; padding: .2rem .5rem; font-variant-numeric: tabular-nums; }
.numbers th { vertical-align: bottom; }
.numbers .best { background: var(--mark); font-weight: 600; border-radius: 4px; padding: 0 .3rem; margin: 0 -.3rem; }
.numbers td, .numbers th { white-space: nowrap; }
.numbers td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
.numbers :is(td, th):nth-child(2) { text-align: left; }
ins { background: var(--mark); text-decoration: none; } mark { background: #ef444440; color: inherit; }
pre s, .note s { opacity: .6; margin-left: .15em; }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0; }
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return the page; `style` is added to what all pages have."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """Return a table.

    Args:
      head: cells of the first row, HTML as all cells; empty: no such row.
      rows: (class, cells) of each other row; a class may be "".
      kind: class of the table.
    """
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"] if head else []
    for mark, cells in rows:
        lines.append(f'<tr class="{mark}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return f'<div class="wide"><table class="{kind}">{"".join(lines)}</table></div>'


def folded(title: str, content: str) -> str:
    """Return content that is shown when its title is clicked."""
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"
