"""What each page of the runbooks is about, so that values of this moment can be put beside it; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.degradation.matrix import Level, signals_of
from controlplane.policy.model import Policy
from controlplane.render.alerting.rules import Group
from controlplane.render.runbooks.alerts import INDEX, page_of, ringing, rows_of
from controlplane.render.wording import page_name, spell_doing


@dataclass(frozen=True, slots=True)
class Subject:
    """What one page is about."""

    path: str
    """Of the file, relative to the publish directory, such as `runbooks/alerts/LatencyP99Breach.md`."""
    title: str
    about: str
    """One line for a list of pages."""
    levels: tuple[str, ...]
    """The rows it leads to."""
    signals: tuple[str, ...]
    """The signals it is about, or its rows trip by."""
    alert: str = ""
    """The alert's name; empty for a page about a row, and for the index."""
    severity: str = ""

    @property
    def name(self) -> str:
        """How the page is called in an address: its path without folder and ending."""
        return self.path.removeprefix("runbooks/").removesuffix(".md")


def subjects(policy: Policy, groups: Sequence[Group]) -> Mapping[str, Subject]:
    """Return what every page is about, by its name; rows first, then the index, then alerts."""
    found = [
        Subject(
            f"runbooks/{page_name(row)}.md", f"{row.level}: {spell_doing(row)}", spell_doing(row), (row.level.value,),
            tuple(dict.fromkeys(signals_of(row.when))),
        )
        for row in rows_of(policy)
    ]  # fmt: skip
    found.append(Subject(INDEX, "Runbooks", "every row and every alert", (), ()))
    for alert in ringing(groups):
        levels = tuple(dict.fromkeys(a.level for a in alert.alerts if str(a.level) != Level.NONE))
        signals = (alert.signal,) if alert.signal else ()
        found.append(
            Subject(
                page_of(alert.name), alert.name, alert.first.meaning, tuple(str(level) for level in levels), signals,
                alert.name, alert.first.severity.value,
            )
        )  # fmt: skip
    return {subject.name: subject for subject in found}
