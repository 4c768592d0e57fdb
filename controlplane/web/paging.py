"""Lists page by page, the same way everywhere: `limit`, an opaque `after`, and a `Link` to the next page (RFC 8288).

The body of a list stays a list. Whoever follows the links sees each item once, whatever is added meanwhile: a page
begins behind the last item of the one before, not at a number.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import Query, Request
from fastapi.responses import JSONResponse

from controlplane.errors import UsageError
from controlplane.web.answers import json_answer

MOST = 500
"""Items of one page."""

Limit = Annotated[int, Query(ge=1, le=MOST, description="How many items at most.")]
After = Annotated[
    str,
    Query(max_length=1024, pattern="^[A-Za-z0-9_-]*$", description="Where the page begins: taken from a `Link`."),
]
Mark = tuple[datetime, str]
"""When the last item of a page was, and its id."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Newest(Protocol[T_co]):
    """A list that grows, the newest item first."""

    async def __call__(self, limit: int, after: Mark | None = None) -> tuple[T_co, ...]:
        """Return so many items at most, those behind a mark where one is given."""


def spell_key(key: str) -> str:
    """Write where a page goes on so that nobody takes it apart."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_key(after: str) -> str:
    """Read what `spell_key` wrote; empty from an empty text.

    Raises:
        UsageError: when it is not what an earlier page gave.
    """
    try:
        return base64.b64decode(after + "=" * (-len(after) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _no_page() from error


def spell_mark(mark: Mark) -> str:
    """Write a moment and an id as `after`."""
    return spell_key(json.dumps([mark[0].isoformat(), mark[1]], ensure_ascii=False, separators=(",", ":")))


def read_mark(after: str) -> Mark | None:
    """Read an `after`; None from an empty one: the list from its beginning.

    Raises:
        UsageError: when it is not what an earlier page gave.
    """
    if not after:
        return None
    try:
        moment, name = json.loads(read_key(after))
        at = datetime.fromisoformat(moment)
    except (ValueError, TypeError) as error:
        raise _no_page() from error
    if at.tzinfo is None or not isinstance(name, str) or "\x00" in name:
        raise _no_page()
    return at, name


def page_of(
    request: Request, found: Sequence[T], limit: int, after_of: Callable[[T], str], shown: object = None
) -> JSONResponse:
    """Answer with a page.

    Args:
        request: what was asked; the link to the next page keeps its other parameters.
        found: the items from where the page begins, one more than the page has where there are more.
        limit: how many the page has.
        after_of: writes the `after` that goes on behind an item.
        shown: the body in the place of the items.
    """
    items = found[:limit]
    answer = json_answer(items if shown is None else shown)
    if len(found) > limit:
        link_next(request, answer, after_of(items[-1]))
    return answer


def link_next(request: Request, answer: JSONResponse, after: str) -> None:
    """Put the way to the next page on an answer."""
    asked = [(name, value) for name, value in parse_qsl(request.url.query) if name != "after"]
    answer.headers["link"] = f'<{request.url.path}?{urlencode([*asked, ("after", after)])}>; rel="next"'


def sliced(found: Sequence[T], limit: int, after: str, key_of: Callable[[T], str]) -> Sequence[T]:
    """Cut a page, and one item more, out of a list that is whole.

    Args:
        found: the whole list, in the order of its keys or in any other that stays.
        limit: how many items the page has.
        after: where it begins, as `spell_key` wrote it.
        key_of: what tells items apart.

    Raises:
        UsageError: when it is not what an earlier page gave.
    """
    if not after:
        return found[: limit + 1]
    key = read_key(after)
    place = next((number for number, item in enumerate(found) if key_of(item) == key), None)
    if place is None:
        raise _no_page("the item it goes on from is gone")
    return found[place + 1 : place + limit + 2]


def _no_page(why: str = "`after` is not what an earlier page gave") -> UsageError:
    return UsageError("no such page", why, "begin without `after`, and follow the `Link` of each answer")
