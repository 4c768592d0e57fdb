"""The environment that every template of ours is drawn in: sandboxed, strict, read from beside this module; pure."""

from importlib import resources

from jinja2 import FunctionLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment


def sandbox(*, html: bool) -> SandboxedEnvironment:
    """Return a new environment.

    Args:
        html: every value is escaped for HTML; without it the caller's filters escape, and a last line keeps its end.
    """
    folder = resources.files("controlplane.render").joinpath("templates")
    return SandboxedEnvironment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
        autoescape=html,
    )
