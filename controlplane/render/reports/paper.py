"""The templates of the reports: HTML, sandboxed, every value escaped; pure apart from reading them once."""

from functools import cache
from importlib import resources

from jinja2 import FunctionLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from controlplane.render.reports import charts


@cache
def environment() -> SandboxedEnvironment:
    """Return the environment that draws reports."""
    folder = resources.files("controlplane.render").joinpath("templates")
    made = SandboxedEnvironment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    made.globals |= {"plot": charts}
    return made
