"""Who can be told and what may be run, as it stands under `degradation.receivers` and `.commands`; pure.

Secrets never stand on the page: `env:NAME` names a variable, `file:PATH` a file that holds one.
"""

from dataclasses import dataclass
from datetime import timedelta

from controlplane.degradation.action import CordonNode, RewriteModel, Scale

SECRET_PLACES = ("env:", "file:")


@dataclass(frozen=True, slots=True)
class ReceiverSpec:
    """Somewhere people are told; exactly one of `alertmanager`, `webhook` and `slack` is given."""

    alertmanager: str = ""
    """An Alertmanager's base URL; it gets an alert that is resolved when the row is over."""
    webhook: str = ""
    """Gets plain JSON: a URL, or `env:NAME` or `file:PATH` of one."""
    slack: str = ""
    """Gets what Slack and its like understand: `env:NAME` or `file:PATH` of the URL, which is a secret."""
    token: str = ""
    """Sent as `Authorization: Bearer`: `env:NAME` or `file:PATH`; empty sends none."""

    @property
    def kind(self) -> str:
        """Return which of the three it is; an empty text when it is none."""
        return next((kind for kind in ("alertmanager", "webhook", "slack") if getattr(self, kind)), "")


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command that rows may run. Never a shell: a program and its arguments, as they are."""

    run: tuple[str, ...]
    """The program, by its absolute path, and its arguments."""
    undo: tuple[str, ...]
    """What undoes it, likewise."""
    check: tuple[str, ...] = ()
    """Ends with 0 while it is in force, and says so; without it, that it ran is all the proof there is."""
    timeout: timedelta = timedelta(seconds=30)
    """It, and everything it started, is killed after this long."""


def wrong_with_receiver(spec: ReceiverSpec) -> str:
    """Return why a receiver cannot be used, or an empty text."""
    given = [kind for kind in ("alertmanager", "webhook", "slack") if getattr(spec, kind)]
    if len(given) != 1:
        return f"exactly one of `alertmanager`, `webhook` and `slack` is needed, not {len(given)}"
    if spec.slack and not spec.slack.startswith(SECRET_PLACES):
        return "a Slack URL is a secret: name its place, `env:NAME` or `file:PATH`"
    if spec.token and not spec.token.startswith(SECRET_PLACES):
        return "a token is a secret: name its place, `env:NAME` or `file:PATH`"
    url = spec.alertmanager or spec.webhook
    if url and not url.startswith(("http://", "https://", *SECRET_PLACES)):
        return f"`{url}` is no URL"
    return ""


def wrong_with_command(spec: CommandSpec) -> str:
    """Return why a command cannot be allowed, or an empty text."""
    for key, line in (("run", spec.run), ("undo", spec.undo), ("check", spec.check)):
        if not line and key == "check":
            continue
        if not line:
            return f"`{key}` is empty: what cannot be undone is not done"
        if not line[0].startswith("/"):
            return f"`{line[0]}` is no absolute path: which program would run is left to chance"
    return "" if spec.timeout > timedelta(0) else "the timeout must be longer than nothing"


def wrong_with_scale(scale: Scale) -> str:
    """Return why a scale errand makes no sense, or an empty text."""
    what, _, name = scale.target.partition("/")
    if what not in ("deployment", "statefulset", "hpa") or not name:
        return f"`{scale.target}` is neither `deployment/NAME`, `statefulset/NAME` nor `hpa/NAME`"
    if what != "hpa" and (scale.replicas is None or scale.min is not None or scale.max is not None):
        return f"a {what} takes `replicas`, and nothing else"
    if what == "hpa" and (scale.replicas is not None or (scale.min is None and scale.max is None)):
        return "an autoscaler takes `min` and `max`, or one of them"
    return ""


EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
"""What a taint may do."""


def wrong_with_rewrite(rewrite: RewriteModel) -> str:
    """Return why a model cannot be rewritten so, or an empty text."""
    if rewrite.model == rewrite.to:
        return f"`{rewrite.model}` would be rewritten to itself"
    return "" if 0.01 <= rewrite.share <= 1 else "the share must be at least 1%, and 100% at most"


def taint_of(cordon: CordonNode) -> tuple[str, str, str]:
    """Return the key, value and effect of a taint that is to be set; empty texts where there is none."""
    key, _, effect = cordon.taint.rpartition(":")
    key, _, value = key.partition("=")
    return key, value, effect


def wrong_with_cordon(cordon: CordonNode) -> str:
    """Return why a node cannot be cordoned so, or an empty text."""
    key, _, effect = taint_of(cordon)
    if cordon.taint and (not key or effect not in EFFECTS):
        return f"`{cordon.taint}` is no taint: `KEY=VALUE:EFFECT` with one of {', '.join(EFFECTS)}"
    return ""
