"""What the API reads besides the books: the experiments' files, and where the engines' metrics are."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from controlplane.chaos.experiment import ExperimentFile
from controlplane.flows.standing import Standing
from controlplane.policy.model import Policy
from controlplane.probes.probe import MetricsSpec
from controlplane.runtime.experiments import list_experiments


def experiments_of(
    directory: Path, standing: Callable[[], Standing]
) -> Callable[[], Awaitable[tuple[ExperimentFile, ...]]]:
    """Return what reads every experiment, checked against the fleet as it stands."""

    async def read() -> tuple[ExperimentFile, ...]:
        pools = {pool.name: len(pool.endpoints) for pool in standing().pools}
        return await asyncio.to_thread(list_experiments, directory, pools)

    return read


def metrics_path(policy: Policy) -> str:
    """Return where an engine's metrics page is, behind its base URL."""
    found = (spec.given for spec in policy.probes)
    return next((given.path for given in found if isinstance(given, MetricsSpec)), MetricsSpec().path)
