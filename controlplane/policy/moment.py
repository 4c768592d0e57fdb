"""Times of day on the page: that they come, and in which time zone."""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from controlplane.policy.page import Page, Path


def check_moment(page: Page, hour: int, minute: int, timezone: str, path: Path) -> None:
    """Refuse a time of day that never comes, and a time zone that nobody knows.

    Args:
        page: collects what is wrong.
        hour: 0..23.
        minute: 0..59.
        timezone: an IANA name.
        path: of the mapping that holds the three.
    """
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        page.wrong(
            (*path, "timezone"), f"unknown time zone `{timezone}`", "it is not an IANA name",
            "write one such as `Asia/Shanghai` or `UTC`",
        )  # fmt: skip
    if not (0 <= hour <= 23 and 0 <= minute <= 59):
        page.wrong(path, f"{hour}:{minute:02} is no time of day", "hour 0..23, minute 0..59", "mend the hour")
