"""How a model card looks: Markdown, and one HTML page with its pictures inside (R11.1)."""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle.model_card import Block, ModelCard, Picture
from lifecycle.quality import shorten

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates" / "model_card"

_LONGEST = 2_000  # characters of one text of the card
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")
_STARTS_A_LIST = re.compile(r"^(\s*)([-+](?!\d)|\d+(?=[.)](?:\s|$)))")


def render_markdown(card: ModelCard, figures: Mapping[str, str] | None = None) -> str:
    """Write the card as Markdown.

    Parameters
    ----------
    card
        Its content; texts from data or files are escaped, so that they are neither HTML nor Markdown.
    figures
        Name: address of the picture, relative to where the text will lie. Pictures without one are left out.

    Returns
    -------
    str
        GitHub-flavoured Markdown.
    """
    environment = _environment(autoescape=False)
    environment.filters["text"] = markdown_text
    rendered: str = environment.get_template("card.md.j2").render(card=card, figures=figures or {})
    return re.sub(r"\n{3,}", "\n\n", rendered).strip() + "\n"


def render_html(card: ModelCard, figures: Mapping[str, bytes]) -> str:
    """Render the card as one page that needs nothing from elsewhere.

    Parameters
    ----------
    card
        Its content; texts from data or files are escaped.
    figures
        Name: PNG. Pictures without one are left out.
    """
    environment = _environment(autoescape=True)
    environment.filters["text"] = _short
    images = {
        name: f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        for name, picture in figures.items()
        if picture
    }
    rendered: str = environment.get_template("card.html.j2").render(
        card=card,
        sections=[(section.title, _grouped(section.blocks, images)) for section in card.sections],
        images=images,
        css=(TEMPLATES / "card.css").read_text(encoding="utf-8"),
    )
    return rendered


def markdown_text(value: str) -> str:
    r"""Text that Markdown shows as it is, in one line.

    Examples
    --------
    >>> markdown_text("<b>*x*|y")
    '&lt;b&gt;\\*x\\*\\|y'
    """
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(_short(value), quote=False))
    return _STARTS_A_LIST.sub(
        lambda match: f"{match[1]}{match[2]}\\" if match[2].isdigit() else f"{match[1]}\\{match[2]}", escaped
    )


def _short(value: object) -> str:
    return " ".join(shorten(value, _LONGEST).split())


def _grouped(blocks: tuple[Block, ...], images: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Blocks with their kind; pictures that follow each other stand side by side, those without an image go."""
    groups: list[tuple[str, Any]] = []
    for kind, members in itertools.groupby(blocks, key=lambda block: type(block).__name__):
        if kind == "Picture":
            shown = [one for one in members if isinstance(one, Picture) and one.name in images]
            if shown:
                groups.append(("Pictures", shown))
        else:
            groups += [(kind, one) for one in members]
    return groups


def _environment(*, autoescape: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,  # noqa: S701 - Markdown has its own escape, the filter "text"
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["kind"] = lambda block: type(block).__name__
    return environment
