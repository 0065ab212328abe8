"""Small charts as SVG text: no scripts, no fonts, no files. Colours are CSS classes, so a page decides light and dark.

Sizes are in SVG units; the page scales a chart to its column. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

WIDTH, HEIGHT = 460.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 14.0, 14.0, 40.0
LABEL_GAP = 15.0  # closest that two labels may stand over one another
LABEL_WIDTH = 34.0  # of the names of stages, roughly


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One measurement, with its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""  # shown when pointed at


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line of dots. `style` is the CSS class that colours it."""

    name: str
    style: str
    dots: Sequence[Dot]


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area: data limits, and where they lie on paper."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    right: float = RIGHT

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - self.right)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def lines(series: Sequence[Series], *, x_label: str, title: str, y_limits: tuple[float, float] | None = None,
          whole_x: bool = False, labelled: bool = True) -> str:  # fmt: skip
    """A chart of lines with interval bands. Empty text where there is nothing to draw."""
    series = [Series(name=s.name, style=s.style, dots=_finite(s.dots)) for s in series]
    series = [s for s in series if s.dots]
    if not series:
        return ""
    frame = _frame(series, y_limits, labelled)
    parts = [_axes(frame, x_label, whole_x), *(_band(frame, s) for s in series), *(_line(frame, s) for s in series)]
    if labelled:
        parts.append(_end_labels(frame, series))
    return _svg(title, parts)


def scatter(
    series: Sequence[Series], *, x_label: str, y_label: str, title: str,
    x_limits: tuple[float, float], y_limits: tuple[float, float],
) -> str:  # fmt: skip
    """A chart of points in a plane, those of a series joined by a thin path. Empty text without any."""
    series = [Series(name=s.name, style=s.style, dots=_finite(s.dots)) for s in series]
    series = [s for s in series if s.dots]
    if not series:
        return ""
    frame = replace(_frame(series, y_limits, labelled=False), x_low=x_limits[0], x_high=x_limits[1])
    parts = [
        _axes(frame, x_label, whole_x=False),
        f'<text class="name" x="{LEFT}" y="{TOP - 4}">{escape(y_label)}</text>',
        *(_path(frame, s) for s in series),
        *(_mark(frame, s, dot, 4.0) for s in series for dot in s.dots),
        _labels_of_last(frame, series),
    ]
    return _svg(title, parts)


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """About `count` round numbers within [low, high]."""
    rough = (high - low) / max(count - 1, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's text: short, no exponent between 0.001 and 10⁵."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _finite(dots: Sequence[Dot]) -> list[Dot]:
    return [dot for dot in dots if math.isfinite(dot.x) and math.isfinite(dot.y)]


def _frame(series: Sequence[Series], y_limits: tuple[float, float] | None, labelled: bool) -> Frame:
    dots = [dot for s in series for dot in s.dots]
    x_low, x_high = min(d.x for d in dots), max(d.x for d in dots)
    low, high = y_limits or (
        min(d.y if d.low is None else d.low for d in dots),
        max(d.y if d.high is None else d.high for d in dots),
    )
    margin = 0 if y_limits else (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    room = RIGHT + (8.0 * max(len(s.name) for s in series) if labelled else 0)
    x_spare = 0 if x_high > x_low else 1.0
    floor = max(0.0, low - margin) if low >= 0 else low - margin  # what is never negative has no axis below 0
    return Frame(x_low - x_spare, x_high + x_spare, floor, high + margin, right=min(room, WIDTH / 3))


def _axes(frame: Frame, x_label: str, whole_x: bool) -> str:
    rows = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - frame.right:.1f}" y1="{frame.y(v):.1f}" y2="{frame.y(v):.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{frame.y(v) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        for v in ticks(frame.y_low, frame.y_high)
    ]
    columns = [
        f'<text class="tick" x="{frame.x(v):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(frame.x_low, frame.x_high, whole=whole_x)
    ]
    base = HEIGHT - BOTTOM
    middle = (LEFT + WIDTH - frame.right) / 2
    return (
        "".join(rows + columns)
        + f'<line class="axis" x1="{LEFT}" x2="{WIDTH - frame.right:.1f}" y1="{base}" y2="{base}"/>'
        + f'<text class="name" x="{middle:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
    )


def _band(frame: Frame, series: Series) -> str:
    dots = [(d.x, d.low, d.high) for d in series.dots if d.low is not None and d.high is not None]
    if len(dots) < 2:
        return ""
    upper = [f"{frame.x(x):.1f},{frame.y(high):.1f}" for x, _, high in dots]
    lower = [f"{frame.x(x):.1f},{frame.y(low):.1f}" for x, low, _ in reversed(dots)]
    return f'<polygon class="band {escape(series.style)}" points="{" ".join(upper + lower)}"/>'


def _line(frame: Frame, series: Series) -> str:
    points = " ".join(f"{frame.x(d.x):.1f},{frame.y(d.y):.1f}" for d in series.dots)
    line = f'<polyline class="line {escape(series.style)}" points="{points}"/>' if len(series.dots) > 1 else ""
    radius = 3.2 if len(series.dots) <= 20 else 0
    return line + "".join(_mark(frame, series, dot, radius) for dot in series.dots if radius or dot.note)


def _path(frame: Frame, series: Series) -> str:
    points = " ".join(f"{frame.x(d.x):.1f},{frame.y(d.y):.1f}" for d in series.dots)
    return f'<polyline class="path {escape(series.style)}" points="{points}"/>' if len(series.dots) > 1 else ""


def _mark(frame: Frame, series: Series, dot: Dot, radius: float) -> str:
    x, style = frame.x(dot.x), escape(series.style)
    whisker = ""
    if len(series.dots) == 1 and dot.low is not None and dot.high is not None:
        ends = f'y1="{frame.y(dot.low):.1f}" y2="{frame.y(dot.high):.1f}"'
        whisker = f'<line class="whisker {style}" x1="{x:.1f}" x2="{x:.1f}" {ends}/>'
    note = f"<title>{escape(dot.note)}</title>" if dot.note else ""
    return whisker + f'<circle class="dot {style}" cx="{x:.1f}" cy="{frame.y(dot.y):.1f}" r="{radius}">{note}</circle>'


def _end_labels(frame: Frame, series: Sequence[Series]) -> str:
    """Names beside the right edge, as high as their lines end, pushed apart where they would cover each other."""
    wanted = sorted(((frame.y(s.dots[-1].y) + 4, s) for s in series), key=lambda pair: pair[0])
    placed: list[float] = []
    for y, _ in wanted:
        placed.append(max(y, placed[-1] + LABEL_GAP) if placed else y)
    overflow = max(0.0, placed[-1] - (HEIGHT - BOTTOM))
    x = WIDTH - frame.right + 9
    return "".join(
        f'<text class="label {escape(s.style)}" x="{x:.1f}" y="{y - overflow:.1f}">{escape(s.name)}</text>'
        for y, (_, s) in zip(placed, wanted, strict=True)
    )


def _labels_of_last(frame: Frame, series: Sequence[Series]) -> str:
    """Names beside the last dots, each where it covers no dot and no other name, as far as there is such a place."""
    taken = [(frame.x(dot.x), frame.y(dot.y)) for s in series for dot in s.dots]
    parts = []
    for s in series:
        x, y = _free_place(frame.x(s.dots[-1].x), frame.y(s.dots[-1].y), taken)
        taken += [(x - LABEL_WIDTH / 3, y), (x, y), (x + LABEL_WIDTH / 3, y)]
        parts.append(
            f'<text class="label {escape(s.style)}" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(s.name)}</text>'
        )
    return "".join(parts)


def _free_place(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The middle of a name: over the dot at (x, y), under it, right or left of it, and then ever further over it."""
    beside, over = LABEL_WIDTH * 0.75, LABEL_GAP
    near = [(x, y - over), (x, y + over), (x + beside, y), (x - beside, y)]
    further = [(x, y - over * n) for n in range(2, 2 + len(taken))]
    return next((place for place in near + further if _is_on_paper(place) and not _covers(place, taken)), (x, y - over))


def _is_on_paper(place: tuple[float, float]) -> bool:
    return LEFT + LABEL_WIDTH / 2 <= place[0] <= WIDTH - LABEL_WIDTH / 2 and TOP < place[1] < HEIGHT - BOTTOM


def _covers(place: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    return any(abs(place[0] - x) < LABEL_WIDTH * 0.6 and abs(place[1] - y) < LABEL_GAP - 1 for x, y in taken)
