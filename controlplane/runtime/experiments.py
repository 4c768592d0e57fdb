"""Experiments as files: found by name, read, and checked against the fleet there is."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from controlplane.chaos.experiment import Experiment, overreach
from controlplane.chaos.experiment import read as read_experiment
from controlplane.errors import ExperimentError, UsageError


def find_experiment(directory: Path, name: str, pools: Mapping[str, int]) -> tuple[Experiment, Path]:
    """Find and check an experiment.

    Args:
        directory: where experiments are.
        name: a file's name without its ending.
        pools: how many endpoints each pool has now.

    Raises:
        UsageError: when there is none of that name.
        ExperimentError: when it may not be run as it is written.
    """
    path = directory / f"{name}.yaml"
    known = sorted(p.stem for p in directory.glob("*.yaml"))
    if name not in known:
        raise UsageError(
            f"no experiment `{name}` in {directory}", f"there are: {', '.join(known) or 'none'}",
            "name one of them, or the directory with --experiments",
        )  # fmt: skip
    try:
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"cannot read {path}", str(error), "mend the file") from error
    experiment, problems = read_experiment(name, page)
    problems = problems or (overreach(experiment, pools) if experiment else ())
    if experiment is None or problems:
        first, *more = problems
        also = f" (and {len(more)} more)" if more else ""
        raise ExperimentError(f"{first.where}: {first.what}{also}", first.why, first.fix)
    return experiment, path
