"""The errors a user can meet: each says what is wrong, why, and the way out.

Every stratum may raise these; `cli` prints them and turns `exit_code` into the process's exit status, `web` into a
problem document. Foreign exceptions become one of these at the edge where they appear (`raise ... from`).
"""

from dataclasses import dataclass


class ControlplaneError(Exception):
    """Something the user can act on.

    Args:
        what: what is wrong, in one line.
        why: what led to it, as far as it is known.
        fix: the way out, as something to do.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix


class UsageError(ControlplaneError):
    """The command or its input is wrong; nothing was done."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file that a person wrote."""

    where: str
    """`file:line`."""
    what: str
    why: str
    fix: str


class PolicyError(UsageError):
    """A policy page that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the policy")
        self.problems = problems


class RunDirError(ControlplaneError):
    """The run directory cannot be used: read-only, full, or in use by another process."""


class StoreError(ControlplaneError):
    """The database cannot be opened, migrated, read or written."""


class FencedError(StoreError):
    """Another control plane has taken over: this one may neither write nor move a lever any more."""


class UnreachableError(ControlplaneError):
    """A server we need does not answer."""

    exit_code = 4


class NotNowError(ControlplaneError):
    """It may not be done now: a gate is closed, a row stands otherwise, the same is under way. Nothing was done."""

    exit_code = 3


class NotAllowedError(ControlplaneError):
    """The credential does not open this. Nothing was done."""

    exit_code = 5


class ActuatorError(ControlplaneError):
    """A lever did not move, or could not be read back."""


class FaultError(ControlplaneError):
    """A fault could not be injected, proven or healed."""


class ExperimentError(UsageError):
    """An experiment that cannot be run as it is written."""
