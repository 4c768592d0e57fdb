"""The templates of the reports: HTML, sandboxed, every value escaped; pure apart from reading them once."""

from functools import cache

from jinja2.sandbox import SandboxedEnvironment

from controlplane.render.reports import charts
from controlplane.render.templating import sandbox


@cache
def environment() -> SandboxedEnvironment:
    """Return the environment that draws reports."""
    made = sandbox(html=True)
    made.globals |= {"plot": charts}
    return made
