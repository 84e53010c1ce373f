"""Draws curves over logarithmic axes as SVG, on paper of its own that turns dark where the reader's page is."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from math import ceil, floor, log10
from typing import Final

#: Sizes in pixels. The margin on the right holds the names of the curves.
_WIDTH: Final = 880
_HEIGHT: Final = 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 270, 50, 55
_LINE: Final = 17
#: Of the first curve, which is ours, and of the others; each stands out from white and from black paper.
_COLOURS: Final = (
    *("#d6336c", "#e8853a", "#1c7ed6", "#2f9e44", "#12a5a5", "#9c6ade", "#b07d2b", "#94a100", "#868e96"),
)
_STYLE: Final = """
  .paper { fill: #ffffff } .ink { fill: #24292f } .grid { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) { .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .grid { stroke: #30363d } }
  text { font: 13px system-ui, sans-serif } .title { font-weight: bold; font-size: 15px }
"""

Point = tuple[float, float]


def draw(curves: Mapping[str, Sequence[Point]], title: str = "CPU microseconds per restart") -> str:
    """Draw curves, the first of them thicker.

    Args:
        curves: Their points, by name: requests at once, and microseconds.
        title: What is drawn.
    """
    drawn = {name: points for name, points in curves.items() if points}
    xs = sorted({x for points in drawn.values() for x, _ in points})
    lowest, highest = (find(y for points in drawn.values() for _, y in points) for find in (min, max))
    ticks = _ticks(lowest, highest)

    def place(point: Point) -> Point:
        across = _share(point[0], xs[0], xs[-1]) * (_WIDTH - _LEFT - _RIGHT)
        up = _share(point[1], ticks[0], ticks[-1]) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _HEIGHT - _BOTTOM - up

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
        f'<text class="ink title" x="{_LEFT}" y="28">{escape(title)}</text>',
        f'<text class="ink" x="{_LEFT}" y="{_HEIGHT - 12}">requests at once</text>',
    ]
    for tick in ticks:
        _, y = place((xs[0], tick))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="ink" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,.0f}</text>')
    for x in xs:
        across, _ = place((x, ticks[0]))
        y = _HEIGHT - _BOTTOM + 20
        parts.append(f'<text class="ink" x="{across:.1f}" y="{y}" text-anchor="middle">{x:,.0f}</text>')
    placed = {name: [place(point) for point in points] for name, points in drawn.items()}
    labels = _apart({name: points[-1][1] for name, points in placed.items()})
    for number, (name, points) in enumerate(placed.items()):
        colour, width = _COLOURS[number % len(_COLOURS)], 3.5 if number == 0 else 2
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width}" fill="{colour}"/>' for x, y in points]
        x, y = _WIDTH - _RIGHT + 12, labels[name]
        parts.append(f'<rect x="{x}" y="{y - 4:.1f}" width="12" height="{width + 1}" fill="{colour}"/>')
        weight = ' font-weight="bold"' if number == 0 else ""
        parts.append(f'<text class="ink" x="{x + 18}" y="{y + 4:.1f}"{weight}>{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(lowest: float, highest: float) -> list[float]:
    """Give 1, 2 and 5 of each power of ten, from the last below the values to the first above."""
    powers = range(floor(log10(lowest)), ceil(log10(highest)) + 1)
    steps = [step * 10.0**power for power, step in product(powers, (1, 2, 5))]
    first = max(step for step in steps if step <= lowest)
    last = min(step for step in steps if step >= highest)
    return [step for step in steps if first <= step <= last]


def _share(value: float, first: float, last: float) -> float:
    return (log10(value) - log10(first)) / (log10(last) - log10(first)) if last > first else 0.5


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Move names down until none covers another."""
    moved: dict[str, float] = {}
    free = 0.0
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        moved[name] = max(height, free)
        free = moved[name] + _LINE
    return moved
