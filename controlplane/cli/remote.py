"""Which control plane the command line talks to, where it is told on the line: `controlplane --url ... status`."""

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Remote:
    """A control plane somewhere."""

    url: str = ""
    """Empty: the environment, or the state directory, says where."""
    token_file: Path | None = None
    ca_file: Path | None = None
    """PEM file with the authority that vouches for it; the system's own without one."""


named: ContextVar[Remote] = ContextVar("named", default=Remote())  # noqa: B039 - frozen
"""What the line said; `cli.root` sets it before a command runs."""
