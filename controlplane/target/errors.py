"""The one exception of the target: what went wrong, why, and the way out. The command line prints it."""


class TargetError(Exception):
    """A failure that a person can mend."""

    def __init__(self, what: str, why: str, fix: str) -> None:
        """Keep the three parts; ``str()`` joins them into one line for logs."""
        super().__init__(f"{what}: {why}. {fix}")
        self.what = what
        self.why = why
        self.fix = fix
