"""Secrets, read where they are kept at the moment they are needed: a rotated one is taken up without a restart."""

import os
from pathlib import Path

from controlplane.errors import ActuatorError


def read_secret(place: str, base: Path) -> str:
    """Return a secret.

    Args:
        place: `env:NAME` of a variable, `file:PATH`, or an empty text for none; anything else is returned as it is.
        base: where relative paths start.

    Raises:
        ActuatorError: when there is none at its place.
    """
    kind, _, name = place.partition(":")
    try:
        if kind == "env":
            found = os.environ[name].strip()
        elif kind == "file":
            found = (base / name).read_text(encoding="utf-8").strip()
        else:
            return place
    except (OSError, KeyError, ValueError) as error:
        raise ActuatorError(
            f"no secret at {place}", f"{type(error).__name__}: {error}", "put it there, for this process to read"
        ) from error
    if not found:
        raise ActuatorError(f"no secret at {place}", "it is empty", "put it there, for this process to read")
    return found
