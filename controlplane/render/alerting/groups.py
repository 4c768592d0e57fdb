"""Every rule of one service, made from its policy and grouped as Prometheus evaluates it; pure.

Two witnesses: the control plane's own series carry the policy's windows, sample minimums and unknowns already; the
engine's own series see the same harm when the control plane is blind. Called by `artefacts`.
"""

from datetime import timedelta

from controlplane.policy.model import Policy
from controlplane.render.alerting import budgets, drills, engine, gpus, itself, levers, users
from controlplane.render.alerting.rules import Group
from controlplane.render.alerting.subject import Subject

SLOWLY = timedelta(minutes=1)
"""How often rules about hours and days are evaluated."""


def groups(policy: Policy) -> tuple[Group, ...]:
    """Return every rule of one policy."""
    subject, every = Subject(policy), policy.publish.evaluation
    slowly = max(SLOWLY, every)
    made = (
        Group(
            "controlplane-service",
            "What users feel and what the pools have left, as the control plane judges it: the policy's window and "
            "minimum of samples lie behind each value; an unknown signal has no series.",
            every,
            tuple(users.alerts(subject)),
        ),
        Group(
            "controlplane-budget",
            "Promises: how fast what may fail is used up, in two windows at once. The shares of failed requests are "
            "recorded first, and the alerts read what was recorded.",
            every,
            tuple(budgets.alerts(subject)),
            tuple(budgets.records(subject)),
        ),
        Group(
            "controlplane-degradation",
            "Levers: which are pulled, which could not be, which would not work, and whether promises are kept.",
            every,
            tuple(levers.alerts(subject)),
        ),
        Group(
            "controlplane-engine",
            "The second witness: the engine's own series, read by Prometheus alone. It still sees when the control "
            "plane does not.",
            every,
            tuple(engine.alerts(subject)),
        ),
        Group(
            "controlplane-gpu",
            "GPUs by dcgm-exporter's series, and what is to be done about them: an Xid is told by its own counter.",
            every,
            tuple(gpus.alerts(subject)),
            tuple(gpus.records(subject)),
        ),
        Group("controlplane-drills", "Proof that the levers work, and its age.", slowly, tuple(drills.alerts(subject))),
        Group("controlplane-self", "The control plane itself.", every, tuple(itself.alerts(subject))),
    )
    return tuple(group for group in made if group.alerts)
