"""A LiteLLM proxy as the lever: the weights of a model group's deployments, through its admin API.

What that API offers, and this relies on (read in LiteLLM 1.109): `PATCH /model/{id}/update` merges `litellm_params` and
`model_info` into a deployment that is kept in the proxy's database; one from its `config.yaml` is refused. The router's
default strategy (`simple-shuffle`) picks among healthy deployments by `litellm_params.weight`; where all that have a
weight are cooling down it picks among those with weight 0 after all. `GET /model/info` reads deployments back, and
`x-litellm-model-id` on a response names the one that answered. Other replicas of the proxy take a change up when they
next read the database (or at once, where they share a Redis).

It marks no responses with a level: the level is kept in `model_info`, and sampled answers carry none.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import lcm
from typing import Any
from urllib.parse import quote

import aiohttp

from controlplane.degradation.actuator import Observed, Preflight, RoutePlan
from controlplane.degradation.actuators.post import encoded, send
from controlplane.degradation.actuators.sample import Sampler
from controlplane.errors import ActuatorError
from controlplane.fleet.model import LitellmSpec
from controlplane.probes.probe import InferenceSpec

SERVED_BY = "x-litellm-model-id"
LEVEL_KEY = "degradation_level"
"""Where in `model_info` the level in force is kept."""
_ODD_SHAPES = (LookupError, TypeError, ValueError, AttributeError)


class LitellmActuator:
    """The lever of one service behind one LiteLLM proxy."""

    def __init__(
        self, session: aiohttp.ClientSession, spec: LitellmSpec, key: Callable[[], str], model: str,
        asked: InferenceSpec | None = None,
    ) -> None:  # fmt: skip
        """Take the lever.

        Args:
            session: the HTTP connections to use.
            spec: where the proxy is, and which deployments belong to which pool.
            key: gives the admin key.
            model: the model group to ask for in sampled requests.
            asked: the completion to ask for in them.
        """
        self._session = session
        self._url = spec.url.rstrip("/")
        self._deployments = spec.deployments
        self._key = key
        self._model = model
        self._asked = asked

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask whether every deployment is there and can be changed; nothing is."""
        try:
            wanted = self._wanted(plan)
            live = await self._live()
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        fixed = [one for one in wanted if live[one].get("model_info", {}).get("db_model") is False]
        if fixed:
            return Preflight(f"LiteLLM keeps {', '.join(fixed)} in its config.yaml, which its API cannot change")
        before = _observed(live, self._deployments)
        return Preflight(preview=f"weights {dict(before.weights)} -> {dict(plan.weights)}, level {plan.level}")

    async def apply(self, plan: RoutePlan, key: str) -> None:  # noqa: ARG002 - a weight is set as often as one likes
        """Set the weight of every deployment; those that take traffic first, so that there is always somewhere to go.

        Raises:
            ActuatorError: when one could not be set; those that were are put back.
        """
        wanted = self._wanted(plan)
        live = await self._live()
        done: list[str] = []
        try:
            for one in sorted(wanted, key=lambda one: -wanted[one]):
                await self._set(one, wanted[one], plan.level.value)
                done.append(one)
        except ActuatorError:
            for one in done:
                # One without a weight counts like any other; the API can set a weight, not take it away.
                weight = live[one].get("litellm_params", {}).get("weight")
                with suppress(ActuatorError):
                    await self._set(one, 1 if weight is None else weight, live[one]["model_info"].get(LEVEL_KEY, ""))
            raise

    def _wanted(self, plan: RoutePlan) -> dict[str, int]:
        """Return the weight of every deployment: a pool's share, in equal parts and whole numbers."""
        cannot = "shed" if plan.shed else "cordon" if plan.cordoned else ""
        if cannot:
            raise ActuatorError(
                "LiteLLM cannot take the plan", f"no lever here can {cannot} through its admin API",
                "take that action out of the row",
            )  # fmt: skip
        unknown = [pool for pool, weight in plan.weights.items() if weight and not self._deployments.get(pool)]
        if unknown:
            raise ActuatorError(
                "LiteLLM cannot take the plan", f"no deployments are named for pool {', '.join(unknown)}",
                "name their ids under `fleet.gateway.litellm.deployments`",
            )  # fmt: skip
        whole = lcm(*(len(ids) or 1 for ids in self._deployments.values()))
        return {
            one: plan.weights.get(pool, 0) * whole // len(ids) for pool, ids in self._deployments.items() for one in ids
        }

    async def configured(self) -> Observed:
        """Read the weights back.

        Raises:
            ActuatorError: when the proxy does not say.
        """
        return _observed(await self._live(), self._deployments)

    async def sample(self, requests: int) -> Observed:
        """Read the weights, then send real requests; LiteLLM marks no answer with a level."""
        headers = {"authorization": f"Bearer {self._key()}"}
        sampler = Sampler(self._session, self._url, self._model, self._asked, headers, SERVED_BY)
        return replace(await sampler.sample(await self.configured(), requests), answered_level=())

    async def _live(self) -> dict[str, Mapping[str, Any]]:
        """Return our deployments by id."""
        answer = await self._ask("GET", "/model/info")
        try:
            found = {str(one["model_info"]["id"]): one for one in answer.json()["data"]}
        except _ODD_SHAPES as error:
            raise ActuatorError(
                f"{self._url}/model/info is no list of models", f"{type(error).__name__}: {error}",
                "check that `fleet.gateway.litellm.url` is a LiteLLM proxy",
            ) from error  # fmt: skip
        missing = [one for ids in self._deployments.values() for one in ids if one not in found]
        if missing:
            raise ActuatorError(
                f"LiteLLM has no deployment {', '.join(missing)}", f"{self._url}/model/info does not list it",
                "name the `model_info.id` of each under `fleet.gateway.litellm.deployments`",
            )  # fmt: skip
        return found

    async def _set(self, one: str, weight: int, level: str) -> None:
        # Without its id, LiteLLM would give the deployment a new one.
        body = {"litellm_params": {"weight": weight}, "model_info": {"id": one, LEVEL_KEY: level}}
        await self._ask("PATCH", f"/model/{quote(one, safe='')}/update", encoded(body))

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Any:
        headers = {"authorization": f"Bearer {self._key()}"}
        return await send(self._session, method, f"{self._url}{path}", body, headers)


def _observed(live: Mapping[str, Mapping[str, Any]], deployments: Mapping[str, tuple[str, ...]]) -> Observed:
    """Add the deployments' weights up to whole percents by pool."""
    weights = {
        pool: sum(int(live[one].get("litellm_params", {}).get("weight") or 0) for one in ids)
        for pool, ids in deployments.items()
    }
    total = sum(weights.values())
    levels = {str(live[one]["model_info"].get(LEVEL_KEY, "")) for ids in deployments.values() for one in ids}
    return Observed(
        {pool: round(100 * weight / total) for pool, weight in weights.items() if weight},
        levels.pop() if len(levels) == 1 else "",
    )
