"""Charts are well-formed SVG whatever the texts, say in words what they show, and place points where they belong."""

import re
from xml.etree import ElementTree

import pytest

from edge.bench.line_chart import DASHES, INKS, Chart, Line, ticks

SVG = "{http://www.w3.org/2000/svg}"


def chart(*lines: Line, title: str = "Title") -> Chart:
    return Chart(title, "conditions", "size (%)", "hits (%)", 100, 50, lines)


def parsed(value: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(value.svg())  # noqa: S314 our own


def test_more_lines_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="7 lines: at most 6"):
        chart(*(Line(str(number), [(0, 0)]) for number in range(7))).svg()
    assert len(INKS) == len(set(INKS)) == len(set(DASHES)) == 6


def test_texts_cannot_break_the_picture() -> None:
    root = parsed(chart(Line('<a> & "b"', [(0, 0)]), title="</svg><script>"))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "</svg><script>" in texts
    assert '<a> & "b"' in texts
    assert not list(root.iter(f"{SVG}script"))


def test_points_stand_where_the_axes_say() -> None:
    root = parsed(chart(Line("a", [(0, 0), (100, 50)])))
    (line,) = root.iter(f"{SVG}polyline")
    (left, bottom), (right, top) = ([float(at) for at in point.split(",")] for point in line.get("points", "").split())
    labels = [(element.text, element) for element in root.iter(f"{SVG}text")]
    on_left = {text: float(label.get("y", "")) for text, label in labels if label.get("text-anchor") == "end"}
    below = {text: float(label.get("x", "")) for text, label in labels if label.get("text-anchor") == "middle"}
    assert (on_left["0"] - 5, on_left["50"] - 5) == (bottom, top)
    assert (below["0"], below["100"]) == (left, right)


def test_what_cannot_be_seen_can_be_read() -> None:
    text = parsed(chart(Line("LRU", [(25, 12.5)]))).findtext(f"{SVG}desc")
    assert text == "hits (%) by size (%). LRU: 25: 12.5"


def test_every_line_has_an_ink_of_its_own_on_both_pages() -> None:
    style = parsed(chart(Line("a", [(0, 0)]), Line("b", [(1, 1)]))).findtext(f"{SVG}style")
    assert style is not None
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for page in (light, dark):
        inks = re.findall(r"\.line\d \{ stroke: (#\w+) \}", page)
        assert len(inks) == len(set(inks)) == 2
        assert ".page" in page


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, section 1.4.3."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(("light", "dark"), INKS)
def test_lines_stand_out_from_their_page(light: str, dark: str) -> None:
    assert contrast(light, "#ffffff") >= 3
    assert contrast(dark, "#0d1117") >= 3


@pytest.mark.parametrize(
    ("most", "expected"),
    [(100, [0, 20, 40, 60, 80, 100]), (32, [0, 10, 20, 30]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (7, [0, 2, 4, 6])],
)
def test_ticks_are_round(most: float, expected: list[float]) -> None:
    assert ticks(most) == expected
