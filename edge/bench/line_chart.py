"""A line chart as an SVG file that reads well on light and dark pages, and without colours. Pure: values to text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 56, 58  # margins of the plot
SUBTITLE_CHARACTERS = 105  # that fit the width in any common font
LEGEND_ROW, LEGEND_GAP = 22, 12
# Light and dark ink of each line, all of a contrast above 3 on their page (WCAG 2.2, 1.4.11), told apart by the colour
# blind (after Paul Tol's "bright" scheme) and, by dashes and marks, without any colour.
INKS = (("#33608c", "#6fb1e8"), ("#b3421f", "#f0916e"), ("#2d7d46", "#6fcf8b"), ("#8a3f8f", "#d99be0"),
        ("#7a6a00", "#d9c74a"), ("#5a5a5a", "#b0b0b0"))  # fmt: skip
DASHES = ("none", "9 5", "3 4", "12 4 3 4", "1 5", "18 6")
STYLE = """\
.page {{ fill: #ffffff }} .ink {{ fill: #1f2328 }} .faint {{ fill: #59636e }}
.grid {{ stroke: #d8dee4 }} .axis {{ stroke: #59636e }}
{light}
@media (prefers-color-scheme: dark) {{
.page {{ fill: #0d1117 }} .ink {{ fill: #e6edf3 }} .faint {{ fill: #9198a1 }}
.grid {{ stroke: #30363d }} .axis {{ stroke: #9198a1 }}
{dark}
}}"""


@dataclass(frozen=True, slots=True)
class Line:
    """Points (x, y) in order of x, joined."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Both axes begin at 0 and end at `x_most`, `y_most`, both above 0; labels say what they show and the unit."""

    title: str
    subtitle: str
    x_label: str
    y_label: str
    x_most: float
    y_most: float
    lines: Sequence[Line]

    def svg(self) -> str:
        """The whole file. Raises ValueError for more lines than can be told apart."""
        if len(self.lines) > len(INKS):
            raise ValueError(f"{len(self.lines)} lines: at most {len(INKS)} can be told apart")
        height = HEIGHT + LEGEND_ROW * -(-len(self.lines) // 2) + LEGEND_GAP
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
                'font-family="system-ui, sans-serif" font-size="14">',
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self._description())}</desc>",
                f"<style>{_style(len(self.lines))}</style>",
                f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
                _text(LEFT, 26, self.title, size=17),
                _text(LEFT, 44, _clipped(self.subtitle), kind="faint", size=12.5),
                *self._axes(),
                *(part for number, line in enumerate(self.lines) for part in self._line(number, line)),
                *(part for number, line in enumerate(self.lines) for part in _legend(number, line.name)),
                "</svg>",
                "",
            ]
        )

    def _description(self) -> str:
        """What the lines say, for those who cannot see them."""
        lines = (f"{line.name}: " + ", ".join(f"{x:g}: {y:.3g}" for x, y in line.points) for line in self.lines)
        return f"{self.y_label} by {self.x_label}. " + "; ".join(lines)

    def _axes(self) -> Iterator[str]:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for y in ticks(self.y_most):
            _, row = self._place(0, y)
            yield f'<line class="grid" x1="{LEFT}" y1="{row}" x2="{right}" y2="{row}"/>'
            yield _text(LEFT - 8, row + 5, f"{y:g}", kind="faint", anchor="end")
        for x in ticks(self.x_most):
            column, _ = self._place(x, 0)
            yield f'<line class="axis" x1="{column}" y1="{bottom}" x2="{column}" y2="{bottom + 5}"/>'
            yield _text(column, bottom + 21, f"{x:g}", kind="faint", anchor="middle")
        yield f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
        yield _text((LEFT + right) / 2, bottom + 44, self.x_label, anchor="middle")
        middle = (TOP + bottom) / 2
        yield _text(20, middle, self.y_label, anchor="middle", more=f' transform="rotate(-90 20 {middle:g})"')

    def _line(self, number: int, line: Line) -> Iterator[str]:
        places = [self._place(x, y) for x, y in line.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        dash = f' stroke-dasharray="{DASHES[number]}"'
        yield f'<polyline class="line{number}" fill="none" stroke-width="2.5"{dash} points="{path}"/>'
        yield from (_mark(number, x, y) for x, y in places)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """In units of the picture."""
        column = LEFT + x / self.x_most * (WIDTH - LEFT - RIGHT)
        row = HEIGHT - BOTTOM - y / self.y_most * (HEIGHT - TOP - BOTTOM)
        return round(column, 1), round(row, 1)


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to at most `most`, four to ten of them."""
    rough = most / 6
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    return [round(number * step, 12) for number in range(math.floor(most / step + 1e-9) + 1)]


def _style(num_lines: int) -> str:
    rows = (
        "\n".join(f".line{n} {{ stroke: {ink[page]} }} .mark{n} {{ fill: {ink[page]} }}" for n, ink in _inks(num_lines))
        for page in (0, 1)
    )
    light, dark = rows
    return STYLE.format(light=light, dark=dark)


def _inks(num_lines: int) -> list[tuple[int, tuple[str, str]]]:
    return list(enumerate(INKS[:num_lines]))


def _mark(number: int, x: float, y: float) -> str:
    """One shape per line: round, square, triangle, diamond, …"""
    if number % 3 == 0:
        return f'<circle class="mark{number}" cx="{x}" cy="{y}" r="3.6"/>'
    if number % 3 == 1:
        return f'<rect class="mark{number}" x="{x - 3.2:g}" y="{y - 3.2:g}" width="6.4" height="6.4"/>'
    return f'<path class="mark{number}" d="M{x} {y - 4.6:g}l4.4 7.6h-8.8z"/>'


def _legend(number: int, name: str) -> Iterator[str]:
    """Two columns below the plot."""
    x, y = LEFT + number % 2 * (WIDTH - LEFT) // 2, HEIGHT + LEGEND_GAP + number // 2 * LEGEND_ROW
    dash = f' stroke-dasharray="{DASHES[number]}"'
    yield f'<line class="line{number}" stroke-width="2.5"{dash} x1="{x}" y1="{y}" x2="{x + 34}" y2="{y}"/>'
    yield _mark(number, x + 17, y)
    yield _text(x + 42, y + 5, name)


def _clipped(text: str) -> str:
    return text if len(text) <= SUBTITLE_CHARACTERS else text[: SUBTITLE_CHARACTERS - 1] + "…"


def _text(
    x: float, y: float, text: str, *, kind: str = "ink", anchor: str = "start", size: float = 14, more: str = ""
) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}"'
    return f'<text class="{kind}" {place}{more}>{escape(text)}</text>'
