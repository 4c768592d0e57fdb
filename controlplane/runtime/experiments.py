"""Experiments as files: found by name, read, and checked against the fleet there is."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from controlplane.chaos.experiment import Experiment, ExperimentFile, overreach
from controlplane.chaos.experiment import read as read_experiment
from controlplane.errors import ExperimentError, Problem, UsageError


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
    experiment, problems = _read(path, pools)
    if experiment is None or problems:
        raise as_error(problems)
    return experiment, path


def as_error(problems: tuple[Problem, ...]) -> ExperimentError:
    """Say in one sentence what is wrong with an experiment: the first thing, and how many more."""
    first, *more = problems
    also = f" (and {len(more)} more)" if more else ""
    return ExperimentError(f"{first.where}: {first.what}{also}", first.why, first.fix)


def list_experiments(directory: Path, pools: Mapping[str, int]) -> tuple[ExperimentFile, ...]:
    """Read every experiment there is, by name.

    Args:
        directory: where experiments are.
        pools: how many endpoints each pool has now.
    """
    found = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            experiment, problems = _read(path, pools)
        except ExperimentError as error:
            experiment, problems = None, (Problem(path.name, error.what, error.why, error.fix),)
        found.append(ExperimentFile(path.stem, None if problems else experiment, problems))
    return tuple(found)


def _read(path: Path, pools: Mapping[str, int]) -> tuple[Experiment | None, tuple[Problem, ...]]:
    try:
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"cannot read {path}", str(error), "mend the file") from error
    experiment, problems = read_experiment(path.stem, page)
    return experiment, problems or (overreach(experiment, pools) if experiment else ())
