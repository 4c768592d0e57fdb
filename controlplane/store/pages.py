"""Where a page of a list goes on: every list that grows is read newest first, from behind a moment and an id."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Select

Mark = tuple[datetime, str]
"""When the last item of a page was, and its id."""


def newest(query: Select[Any], at: Column[Any], key: Column[Any], limit: int, after: Mark | None) -> Select[Any]:
    """Return a query for the newest rows first, those behind a mark where one is given.

    Args:
        query: what is read.
        at: the column the list is ordered by.
        key: the column that tells rows of one moment apart.
        limit: how many rows at most.
        after: the last row of the page before.
    """
    ordered = query.order_by(at.desc(), key.desc()).limit(limit)
    if after is None:
        return ordered
    moment, name = after
    # The first part says nothing new; it is what the index by time is used for.
    return ordered.where((at <= moment) & ((at < moment) | ((at == moment) & (key < name))))
