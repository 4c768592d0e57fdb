"""What is wrong with a page's gateway that its types do not say."""

from controlplane.degradation.errand import SECRET_PLACES
from controlplane.fleet.model import GatewaySpec, PoolSpec
from controlplane.policy.page import Page, Path, spell

PATH: Path = ("fleet", "gateway")
KINDS = ("envoy", "kubernetes", "webhook", "litellm", "dry_run")
ROUTES = ("virtualservice", "httproute")


def check_gateway(page: Page, gateway: GatewaySpec, pools: dict[str, PoolSpec]) -> None:
    """Note what is wrong: not exactly one kind, an unknown route, a secret on the page, a pool that is not there."""
    given = [kind for kind in KINDS if getattr(gateway, kind)]
    if len(given) != 1:
        page.wrong(
            PATH, f"`{spell(PATH)}` needs exactly one of {', '.join(f'`{kind}`' for kind in KINDS)}",
            f"one thing splits the traffic, and {len(given)} are named", "keep the one that does",
        )  # fmt: skip
        return
    named: dict[str, object] = {}
    if gateway.kubernetes:
        here: Path = (*PATH, "kubernetes", "backends")
        named = dict(gateway.kubernetes.backends)
        if gateway.kubernetes.kind not in ROUTES:
            page.wrong(
                (*PATH, "kubernetes", "kind"), f"unknown route `{gateway.kubernetes.kind}`", "no lever moves it",
                f"write one of: {', '.join(ROUTES)}",
            )  # fmt: skip
    if gateway.litellm:
        here = (*PATH, "litellm", "deployments")
        named = dict(gateway.litellm.deployments)
        _check_secret(page, gateway.litellm.key, (*PATH, "litellm", "key"))
    if gateway.webhook:
        _check_secret(page, gateway.webhook.secret, (*PATH, "webhook", "secret"))
    for pool in named:
        if pool not in pools:
            page.wrong(
                (*here, pool), f"no pool `{pool}` in the fleet", "nothing would be sent there",
                "add it under `fleet.pools`, or take it out here",
            )  # fmt: skip


def _check_secret(page: Page, place: str, path: Path) -> None:
    if not place.startswith(SECRET_PLACES):
        page.wrong(
            path, f"`{spell(path)}` is not the place of a secret", "a page is kept where many can read it",
            "write `env:NAME` of a variable, or `file:PATH`",
        )  # fmt: skip
