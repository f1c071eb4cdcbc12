"""The picture of docs/architecture.md for the site, which has no program to draw Mermaid with.

GitHub draws a flowchart. Here its boxes stand above each other, each with what it imports: so the
picture can be read on a phone, and searched.
"""

import html
import re

_FLOWCHART = re.compile(r"```mermaid\nflowchart TD\n(.*?)```\n", re.DOTALL)
_BOX = re.compile(r'^ +(\w+)\["(.*?)"\](:::engine)?$', re.MULTILINE)
_ARROW = re.compile(r"^ +(\w+) --> (\w+)$", re.MULTILINE)


def with_stack(markdown: str) -> str:
    """``markdown`` with a list of boxes in the place of each flowchart."""
    return _FLOWCHART.sub(lambda match: _stack(match[1]), markdown)


def _stack(flowchart: str) -> str:
    boxes = {box: names.split("<br/>") for box, names, _ in _BOX.findall(flowchart)}
    engine = {box for box, _, shade in _BOX.findall(flowchart) if shade}
    below: dict[str, list[str]] = {box: [] for box in boxes}
    for box, other in _ARROW.findall(flowchart):
        below[box].append(other)
    items = [_item(box, boxes, below[box], box in engine) for box in boxes]
    return f'<ol class="layers">\n{"".join(items)}</ol>\n'


def _item(box: str, boxes: dict[str, list[str]], below: list[str], is_engine: bool) -> str:
    names = " ".join(f"<code>{html.escape(name)}</code>" for name in boxes[box])
    imported = ", ".join(html.escape(boxes[each][0]) for each in below)
    arrow = f'<span class="imports">imports {imported}</span>' if imported else ""
    shade = ' class="engine"' if is_engine else ""
    return f"<li{shade}><span>{names}</span>{arrow}</li>\n"
