"""Where a page says that its fleet runs: read as it stands, or told what is wrong with it."""

from pathlib import Path

import pytest
import yaml

from controlplane.degradation.action import CordonNode, RewriteModel, Scale
from controlplane.degradation.matrix import Level
from controlplane.errors import PolicyError
from controlplane.fleet.model import BurnerSpec, KubernetesSubstrateSpec
from controlplane.policy.load import loads

PAGE = """
service: chat
fleet:
  pools: { primary: { endpoints: { file: a.json } }, standby: { endpoints: { file: b.json } } }
  substrate: SUBSTRATE
degradation:
  P0: { do: DO }
"""
SWITCH = "[ { switch_pool: { to: standby } } ]"


def page(substrate: str = "{ process: { nodes_dir: n } }", do: str = SWITCH) -> str:
    return PAGE.replace("SUBSTRATE", substrate).replace("DO", do)


def test_a_cluster_is_read_with_its_defaults() -> None:
    read = loads(page("{ kubernetes: { namespaces: [inference] } }"), Path("p")).policy.fleet.substrate
    assert read is not None
    assert read.kubernetes == KubernetesSubstrateSpec(("inference",))
    assert read.kubernetes.opted_in == "controlplane.dev/chaos=allowed"
    assert read.kubernetes.burner is None


def test_a_cluster_says_what_burns_and_who_opts_in() -> None:
    text = (
        "{ kubernetes: { namespaces: [a, b], context: prod, opted_in: team/drills=yes, chaos_mesh: false, "
        "burner: { image: 'r/controlplane:1', gpus: 1, runtime_class: nvidia, memory: 8Gi } } }"
    )
    read = loads(page(text), Path("p")).policy.fleet.substrate
    assert read is not None
    burner = BurnerSpec("r/controlplane:1", gpus=1, runtime_class="nvidia", memory="8Gi")
    assert read.kubernetes == KubernetesSubstrateSpec(
        ("a", "b"), context="prod", opted_in="team/drills=yes", chaos_mesh=False, burner=burner
    )


@pytest.mark.parametrize(
    ("substrate", "what"),
    [
        ("{}", "needs exactly one of `process`, `netns`, `kubernetes`"),
        ("{ process: { nodes_dir: n }, kubernetes: { namespaces: [a] } }", "needs exactly one of"),
        ("{ kubernetes: {} }", "`fleet.substrate.kubernetes.namespaces` is missing"),
        ("{ kubernetes: { namespaces: [] } }", "`fleet.substrate.kubernetes.namespaces` is empty"),
        ("{ kubernetes: { namespaces: [a], opted_in: yes please } }", "`yes please` is no label"),
        ("{ kubernetes: { namespaces: [a], burner: {} } }", "burner.image` is missing"),
        ("{ kubernetes: { namespaces: [a], burner: { image: i, gpus: -1 } } }", "burner.gpus` is -1"),
        ("{ kubernetes: { namespace: [a] } }", "namespace"),
    ],
)
def test_what_is_wrong_with_it_is_told(substrate: str, what: str) -> None:
    with pytest.raises(PolicyError) as told:
        loads(page(substrate), Path("p"))
    assert any(what in problem.what for problem in told.value.problems)


def test_a_page_with_a_cluster_can_be_printed_whole() -> None:
    pool = "{ primary: { endpoints: { kubernetes: { namespace: llm, selector: app=chat, port: 8000 } } }, standby:"
    text = page("{ kubernetes: { namespaces: [llm], burner: { image: i } } }").replace(
        "{ primary: { endpoints: { file: a.json } }, standby:", pool
    )
    shown = yaml.safe_load(yaml.safe_dump(loads(text, Path("p")).resolved))
    assert shown["fleet"]["substrate"]["kubernetes"]["opted_in"] == "controlplane.dev/chaos=allowed"
    assert shown["fleet"]["substrate"]["kubernetes"]["burner"]["memory"] == "4Gi"


def test_rows_may_change_a_cluster() -> None:
    do = (
        "[ { switch_pool: { to: standby } }, { scale: { statefulset: chat, replicas: 4 } }, "
        "{ scale: { hpa: chat, min: 2, take_over: true } }, { cordon_node: { node: gpu-7 } }, "
        "{ cordon_node: { node: gpu-8, taint: 'degraded=yes:NoSchedule' } }, "
        "{ rewrite_model: { name: chat, inference_pool: pool, model: large, to: small, share: 25% } } ]"
    )
    assert loads(page(do=do), Path("p")).policy.degradation.rows[Level.P0].do[1:] == (
        Scale("statefulset/chat", replicas=4), Scale("hpa/chat", min=2, take_over=True), CordonNode("gpu-7"),
        CordonNode("gpu-8", "degraded=yes:NoSchedule"), RewriteModel("chat", "pool", "large", "small", 0.25),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("{ cordon_node: { node: a, taint: oops } }", "is no taint"),
        ("{ cordon_node: { node: a, taint: 'k=v:Never' } }", "is no taint"),
        ("{ rewrite_model: { name: a, inference_pool: p, model: m, to: m } }", "to itself"),
        ("{ rewrite_model: { name: a, inference_pool: p, model: m, to: n, share: 0% } }", "at least 1%"),
    ],
)
def test_what_could_not_be_done_is_told(action: str, why: str) -> None:
    with pytest.raises(PolicyError) as told:
        loads(page(do=f"[ {action} ]"), Path("p"))
    assert any(why in problem.why for problem in told.value.problems)
