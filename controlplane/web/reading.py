"""Our Markdown as HTML for the console: no raw HTML, no images, links to our own pages and to the web only; pure."""

import posixpath
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

_OUR_COMMENT = re.compile(
    r"^<!-- (?:rendered from .*|notes:(?:begin|end)|revisions:(?:begin .*|end)) -->$", re.MULTILINE
)
_WEB = ("http", "https", "mailto")


class _Renderer(RendererHTML):
    """Draws tables inside a box that scrolls, and links where they lead on the console."""

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        """Open a table; a wide one scrolls by itself, by keyboard too."""
        return '<div class="wide" tabindex="0" role="region" aria-label="table"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        """Close it."""
        return "</table></div>\n"

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Draw a block of commands; a long line scrolls, by keyboard too."""
        return super().fence(tokens, idx, options, env).replace("<pre>", '<pre tabindex="0">', 1)

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Draw an indented block as `fence` does."""
        return super().code_block(tokens, idx, options, env).replace("<pre>", '<pre tabindex="0">', 1)

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Open a link; one that leads nowhere we know of becomes plain text's anchor."""
        token = tokens[idx]
        token.attrs["href"] = _led(str(token.attrs.get("href", "")), str(env.get("at", "")))
        token.attrs["rel"] = "noreferrer"
        return self.renderToken(tokens, idx, options, env)

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Open a heading of a table, without inline style."""
        tokens[idx].attrs.pop("style", None)
        tokens[idx].attrs["scope"] = "col"
        return self.renderToken(tokens, idx, options, env)

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Open a cell, without inline style."""
        tokens[idx].attrs.pop("style", None)
        return self.renderToken(tokens, idx, options, env)


_MARKDOWN = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table").disable("image")


def html_of(text: str, at: str) -> Markup:
    """Draw a page of Markdown.

    Args:
        text: the page; markers of ours are left out, any other HTML is shown as text.
        at: the page's own path under `/runbooks/`, such as `alerts/Watchdog`; relative links start there.
    """
    return Markup(_MARKDOWN.render(_OUR_COMMENT.sub("", text), {"at": at}))  # noqa: S704 - markdown-it escapes


def section(text: str, heading: str) -> str:
    """Return one section of a page, with its heading; empty when there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n.*?(?=^## |^---$|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def _led(href: str, at: str) -> str:
    """Return where a link leads on the console; what is neither ours nor the web's leads nowhere."""
    parts = urlsplit(href)
    if parts.scheme:
        return href if parts.scheme in _WEB else "#"
    if parts.netloc:
        return "#"
    if not parts.path or parts.path.startswith("/"):
        return href
    target = posixpath.normpath(posixpath.join("/runbooks", posixpath.dirname(at), parts.path))
    anchor = f"#{quote(parts.fragment)}" if parts.fragment else ""
    return f"{target.removesuffix('.md')}{anchor}" if target.startswith("/runbooks") else "#"
