"""What is deployed names what is there: paths, options, the page, secrets by reference."""

import re
import shlex
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from controlplane.cli import app
from controlplane.degradation.actuators.kubernetes import AUTOSCALERS, WORKLOADS
from controlplane.degradation.actuators.route_documents import ROUTES
from controlplane.policy.load import load
from controlplane.render.artefacts import render

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kustomize" / "base"
PAGE = BASE / "controlplane.yaml"
UNIT = DEPLOY / "systemd" / "controlplane.service"
SECRETS = {"controlplane-tls", "controlplane-webhook", "controlplane-database"}


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def container() -> dict[str, Any]:
    (found,) = documents(BASE / "statefulset.yaml")
    (one,) = found["spec"]["template"]["spec"]["containers"]
    return dict(one)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Containerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def options() -> set[str]:
    command: Any = typer.main.get_command(app)
    return {name for parameter in command.commands["serve"].params for name in parameter.opts}


def test_the_container_file_copies_what_is_there_and_runs_as_nobody_in_particular() -> None:
    given = instructions()
    copied = [part for word, rest in given if word == "COPY" and "--from" not in rest for part in rest.split()[:-1]]
    assert [path for path in copied if not (ROOT / path).exists()] == []
    for base in (rest.split()[0] for word, rest in given if word == "FROM"):
        name, _, tag = base.rpartition(":")
        assert (bool(name), tag not in ("", "latest")) == (True, True), base
    assert dict(given)["USER"] == "10001:10001"
    assert dict(given)["ENTRYPOINT"] == '["controlplane"]'
    kept = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[1] == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == set(copied)


def test_the_container_has_the_control_planes_own_dependencies_alone() -> None:
    (installed,) = (rest for word, rest in instructions() if word == "RUN" and "pip install" in rest)
    assert '"$wheel[postgres,oidc]"' in installed
    assert "-c constraints.txt" in installed


def test_the_experiments_lie_where_the_server_looks() -> None:
    given = dict(instructions())
    assert given["COPY"].split()[-1] == f"{given['WORKDIR']}/experiments"


def started_by_systemd() -> list[str]:
    text = UNIT.read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    return shlex.split(line)


@pytest.mark.parametrize("line", [container()["args"], started_by_systemd()], ids=["kustomize", "systemd"])
def test_every_option_is_one_of_serve(line: list[str]) -> None:
    used = {word.partition("=")[0] for word in line if word.startswith("--")}
    assert used
    assert used <= options()


def test_the_page_is_sound_and_writes_where_the_container_may() -> None:
    policy = load(PAGE).policy
    mounts = [mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")]
    assert any(policy.publish.dir.startswith(f"{mount}/") for mount in mounts)


def test_the_alerts_that_are_deployed_are_those_of_the_page_that_is_deployed() -> None:
    """But for those of drills, which a page has only where it says what may be broken."""

    def compared(text: str) -> list[Any]:
        found = [one for one in yaml.safe_load_all(text) if one]
        for one in found:
            if one["kind"] == "PrometheusRule":
                one["spec"]["groups"] = [g for g in one["spec"]["groups"] if g["name"] != "controlplane-drills"]
        return found

    made = render(load(PAGE).policy, (), "controlplane.yaml")
    for path in ("alerts/operator", "dashboards/provisioning"):
        listed = yaml.safe_load((ROOT / path / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
        for name in listed:
            there = (ROOT / path / name).read_text(encoding="utf-8")
            assert compared(made[f"{path}/{name}"]) == compared(there), name


def test_secrets_are_named_and_nowhere_written() -> None:
    described = (DEPLOY / "README.md").read_text(encoding="utf-8")
    named = set()
    for path in sorted(DEPLOY.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert "kind: Secret" not in text
        named |= set(
            re.findall(r"secretName: ([\w-]+)|secretKeyRef: \{ name: ([\w-]+)|secret: \{ name: ([\w-]+)", text)
        )
    names = {name for found in named for name in found if name}
    assert names == SECRETS
    assert [name for name in SECRETS if f"`{name}`" not in described] == []


def test_the_role_of_levers_covers_what_levers_change() -> None:
    (role, *_) = documents(DEPLOY / "kustomize" / "rbac" / "actuate" / "role.yaml")
    allowed = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for kind in ROUTES.values():
        assert allowed[kind.group, kind.plural] == {"get", "patch"}
    for workload in WORKLOADS.values():
        assert allowed[workload.group, f"{workload.plural}/scale"] == {"get", "patch"}
    assert {kind.group for kind in AUTOSCALERS} == {"autoscaling"}
    assert allowed["autoscaling", AUTOSCALERS[0].plural] == {"get", "list", "patch"}


def test_the_unit_gives_nothing_away() -> None:
    unit = ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names are written as systemd writes them
    unit.read(UNIT, encoding="utf-8")
    service = unit["Service"]
    for strict in (
        "DynamicUser",
        "NoNewPrivileges",
        "PrivateTmp",
        "ProtectHome",
        "RestrictSUIDSGID",
        "LockPersonality",
    ):
        assert service[strict] == "yes", strict
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["Restart"] == "always"
