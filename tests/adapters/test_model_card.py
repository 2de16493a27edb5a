"""A card's texts come from data and files: they are shown, never run; a picture that is missing leaves no hole."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.model_card import markdown_text, render_html, render_markdown
from lifecycle.findings import Verdict
from lifecycle.model_card import Bullets, ModelCard, Paragraph, Picture, Section, Table

pytestmark = pytest.mark.requirement("R11.1")

PNG = b"\x89PNG\r\n\x1a\nrest"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><script>x</script>",
    "{{ 7 * 7 }} {% raw %}",
    "[click](javascript:alert(1))",
    "![](http://elsewhere/x.png)",
    "a | b\n| --- |\n# title",
    "`code` *bold* _it_ ~gone~",
    "\x00\ud800",
]


def card(text: str = "plain") -> ModelCard:
    return ModelCard(
        title=text,
        lead=text,
        verdict=Verdict.FAIL,
        verdict_text=text,
        sections=(
            Section(
                text,
                (
                    Paragraph(text),
                    Bullets((text, "second")),
                    Table((text, "Verdict", "n"), ((text, "fail", "1"), ("b", "no data", "2")), numeric=(2,)),
                    Picture("roc", text),
                    Picture("scores", text),
                ),
            ),
        ),
    )


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(sorted(attributes))) for tag, attributes in Page(page).tags]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_changes_nothing_but_the_text_of_the_page(hostile: str):
    page = render_html(card(hostile), {"roc": PNG})
    assert shape(page) == shape(render_html(card(), {"roc": PNG}))
    shown = " ".join(hostile.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00").split())
    assert Page(page).texts.count(shown) >= 6


@given(st.text().filter(lambda text: text.strip() not in {verdict.label for verdict in Verdict}))
def test_no_text_but_a_verdict_changes_a_tag(text: str):
    assert shape(render_html(card(text), {})) == shape(render_html(card(), {}))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_one_line_of_plain_markdown(hostile: str):
    lines, plain = render_markdown(card(hostile)).splitlines(), render_markdown(card()).splitlines()
    assert len(lines) == len(plain)
    for line, model in zip(lines, plain, strict=True):
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert bars == len(re.findall(r"(?<!\\)\|", model)), line
        assert "<" not in line
        assert not re.search(r"(?<!\\)[\[`~]", line), line


@given(st.text())
def test_markdown_text_is_the_text_itself_once_read(text: str):
    escaped = markdown_text(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    read = html.unescape(re.sub(r"\\([\\`*_\[\]|#~+.)-])", r"\1", escaped))
    shown = " ".join(text.replace("\x00", "\\x00").split())
    assert read == html.unescape(html.escape(shown, quote=False))


@pytest.mark.parametrize("text", ["- a", "+ a", "1. a", "12) a", "  - a", "# a", "> a", "---", "1."])
def test_a_text_that_looks_like_a_list_or_a_title_is_none(text: str):
    assert not re.match(r"\s*([-+>#]|\d+[.)])", markdown_text(text))


def test_the_page_needs_nothing_from_elsewhere():
    page = Page(render_html(card(), {"roc": PNG}))
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert sources
    assert all(source is not None and source.startswith(("#", "data:image/png;base64,")) for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}


def test_a_picture_without_an_image_leaves_no_hole():
    page = Page(render_html(card(), {"roc": PNG, "scores": b""}))
    assert [tag for tag, _ in page.tags].count("figure") == 1
    assert "figure" not in [tag for tag, _ in Page(render_html(card(), {})).tags]
    text = render_markdown(card(), {"roc": "figures/roc one.png"})
    assert text.count("![") == 1
    assert "(figures/roc%20one.png)" in text


def test_every_picture_says_in_words_what_it_shows():
    images = [attributes for tag, attributes in Page(render_html(card("shown"), {"roc": PNG})).tags if tag == "img"]
    assert [one["alt"] for one in images] == ["shown"]


def test_verdicts_are_marked_by_more_than_colour():
    page = render_html(card(), {})
    assert '<td class="mark FAIL">fail</td>' in page
    assert '<td class="mark NO_DATA">no data</td>' in page
    assert 'td.FAIL::before, p.FAIL::before { content: "✗ "; }' in page


def test_an_interval_stands_under_its_value():
    section = Section("s", (Table(("Measure", "Value"), (("ROC AUC (any)", "0.7 (0.6 to 0.8)"),), numeric=(1,)),))
    page = render_html(ModelCard("t", "l", Verdict.PASS, "v", (section,)), {})
    assert '<td class="n">0.7<br><small>(0.6 to 0.8)</small></td>' in page
    assert "<td>ROC AUC (any)</td>" in page


def test_a_very_long_text_is_cut_and_says_how_long_it_was():
    page = render_html(card("x" * 1_000_000), {})
    assert len(page) < 50_000
    assert "(1,000,000 characters)" in page


def test_markdown_tables_have_one_line_a_row_under_their_rule():
    lines = render_markdown(card()).splitlines()
    start = lines.index("| plain | Verdict | n |")
    assert lines[start : start + 4] == [
        "| plain | Verdict | n |",
        "| --- | --- | ---: |",
        "| plain | fail | 1 |",
        "| b | no data | 2 |",
    ]
