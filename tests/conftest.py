"""What every test shares: the option that makes a skipped test a failure, and one laboratory of Kubernetes."""

import gc
import os

import pytest
from hypothesis import settings

from tests.support.kube_lab.fixtures import hollow, kube_api, kube_crds, kube_lab, namespace

__all__ = ["hollow", "kube_api", "kube_crds", "kube_lab", "namespace"]

# Properties search anew at every run of a person's; in CI they search the same way each time, so that a change is
# judged by what it changes.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fail-on-skip`, for CI: a test that was left out proves nothing."""
    parser.addoption("--fail-on-skip", action="store_true", help="fail when a test was skipped")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when tests were skipped that should have run; leave no garbage to plugins that end after us.

    Schemathesis imports half of itself now, which pytest parses, and Python 3.11 cannot parse while what is collected
    writes a traceback: the session would end in a SystemError (https://github.com/python/cpython/issues/106905).
    """
    gc.collect()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", ())) if reporter else 0
    if skipped and session.config.getoption("--fail-on-skip"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say aloud how many tests were left out."""
    skipped = len(terminalreporter.stats.get("skipped", ()))
    if skipped:
        verdict = "CI fails on this" if config.getoption("--fail-on-skip") else "install what they need to run them"
        terminalreporter.write_line(f"SKIPPED: {skipped} tests; {verdict}", yellow=True, bold=True)
