"""What an Envoy counted of each pool, several times a second: who answered users, and whom it could not reach.

Two kinds of Envoy's own counters and nothing else: answers by the zone that gave them (`zone.FROM.TO`, where the zone
of a pool's endpoints is named after the pool), and connections that failed, of clusters named after a pool (`primary`,
`primary-endpoints`). An Envoy that has no zones says nothing, and neither does any other gateway. Pure; `http` reads.

Envoy puts its own 503 for a connection that it could not make down to the zone of the endpoint it had chosen: a 5xx
is no sign that anybody is there (`tests/conformance/test_gateway_counts.py` holds a real Envoy to it).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

COUNTS_PAGE = (
    r"/stats?format=json&filter=^cluster\.[^.]%2B\."
    r"(zone\.[^.]%2B\.[^.]%2B\.upstream_rq_[1-5]xx|upstream_cx_connect_fail)$"
)
"""The counters of Envoy's admin address that are read: some twenty lines, in a millisecond."""
_ANSWERS = re.compile(r"cluster\.([^.]+)\.zone\.[^.]+\.([^.]+)\.upstream_rq_([1-5])xx")
_FAILED = re.compile(r"cluster\.([^.]+)\.upstream_cx_connect_fail")


@dataclass(frozen=True, slots=True)
class Count:
    """Counters of one pool since the gateway started."""

    own: float = 0.0
    """Answers that the pool itself gave to what was sent its way, but for 5xx."""
    anybody: float = 0.0
    """The same, and what other pools answered in its place."""
    failed: float = 0.0
    """Connections to its endpoints that could not be made."""
    errors: float = 0.0
    """Answers 5xx that are put down to the pool: its own, or the gateway's for an endpoint that it could not reach."""

    def since(self, before: "Count") -> "Count":
        """Return how much each counter has grown."""
        return Count(
            self.own - before.own, self.anybody - before.anybody, self.failed - before.failed,
            self.errors - before.errors,
        )  # fmt: skip


Counts = Mapping[str, Count]
"""By pool."""


def read_counts(body: bytes, pools: Iterable[str]) -> Counts:
    """Read Envoy's counters.

    Args:
        body: what its admin address gave, in JSON.
        pools: names of pools, those first that begin with another's name.

    Raises:
        ValueError, LookupError, TypeError: when it is none of Envoy's.
    """
    counts: dict[str, Count] = {}
    for stat in json.loads(body)["stats"]:
        name = str(stat.get("name", ""))
        if found := _ANSWERS.fullmatch(name):
            asked, by, status = found.groups()
            count, value = counts.get(asked, Count()), float(stat["value"])
            if by == asked and status == "5":
                counts[asked] = replace(count, errors=count.errors + value)
                continue
            own = count.own + (value if by == asked else 0.0)
            counts[asked] = replace(count, own=own, anybody=count.anybody + value)
        elif found := _FAILED.fullmatch(name):
            pool = next((pool for pool in pools if f"{found[1]}-".startswith(f"{pool}-")), "")
            count = counts.get(pool, Count())
            counts[pool] = replace(count, failed=count.failed + float(stat["value"]))
    counts.pop("", None)
    return counts
