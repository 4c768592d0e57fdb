"""What is wrong with where a page says that its fleet runs, that its types do not say."""

import re

from controlplane.fleet.model import KubernetesSubstrateSpec, SubstrateSpec
from controlplane.policy.page import Page, Path, spell

PATH: Path = ("fleet", "substrate")
KINDS = ("process", "netns", "kubernetes")
_LABEL = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?=[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


def check_substrate(page: Page, substrate: SubstrateSpec) -> None:
    """Note what is wrong: not exactly one kind, no namespaces, a label that is none."""
    given = [kind for kind in KINDS if getattr(substrate, kind)]
    if len(given) != 1:
        page.wrong(
            PATH, f"`{spell(PATH)}` needs exactly one of {', '.join(f'`{kind}`' for kind in KINDS)}",
            f"a fleet runs in one place, and {len(given)} are named", "write `process: { nodes_dir: run/nodes }`",
        )  # fmt: skip
        return
    if substrate.kubernetes:
        _check_cluster(page, substrate.kubernetes, (*PATH, "kubernetes"))


def _check_cluster(page: Page, spec: KubernetesSubstrateSpec, path: Path) -> None:
    if not spec.namespaces:
        page.wrong(
            (*path, "namespaces"), f"`{spell((*path, 'namespaces'))}` is empty", "nothing could be broken anywhere",
            "name the namespaces of the fleet's pods: `namespaces: [inference]`",
        )  # fmt: skip
    if not _LABEL.fullmatch(spec.opted_in):
        page.wrong(
            (*path, "opted_in"), f"`{spec.opted_in}` is no label", "a namespace opts in with a label of its own",
            "write `KEY=VALUE`, such as `controlplane.dev/chaos=allowed`",
        )  # fmt: skip
    if spec.burner and spec.burner.gpus < 0:
        page.wrong(
            (*path, "burner", "gpus"), f"`{spell((*path, 'burner', 'gpus'))}` is {spec.burner.gpus}",
            "a job asks for no GPU, or for some", "write 0 to see the node's, or how many it asks for",
        )  # fmt: skip
