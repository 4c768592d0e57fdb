"""A lever that moves nothing: it keeps what it would have moved, and says so wherever it is asked."""

import structlog

from controlplane.degradation.actuator import Observed, Preflight, RoutePlan
from controlplane.degradation.actuators.sample import Sampler
from controlplane.errors import ActuatorError
from controlplane.fleet.model import PRIMARY

log = structlog.get_logger("dry run")


class DryRunActuator:
    """Takes note of plans. What it shows as configured is how things are: everything at the primary pool."""

    def __init__(self, pools: tuple[str, ...], sampler: Sampler | None) -> None:
        """Rehearse over these pools, sampling through a listener where there is one."""
        self._pools = pools
        self._sampler = sampler
        self._rehearsed: RoutePlan | None = None

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Say what would be moved."""
        wrong = self._wrong(plan)
        return Preflight(wrong) if wrong else Preflight(preview=f"dry run: {_spell(plan)} would be set")

    async def apply(self, plan: RoutePlan, key: str) -> None:
        """Take note of a plan.

        Raises:
            ActuatorError: when it names a pool that the fleet does not have.
        """
        wrong = self._wrong(plan)
        if wrong:
            raise ActuatorError("the plan could not be carried out", wrong, "name a pool of the fleet")
        if plan != self._rehearsed:
            log.info("nothing moved", would=_spell(plan), key=key)
        self._rehearsed = plan

    async def configured(self) -> Observed:
        """Return how things are, and the plan that was taken note of."""
        return Observed({PRIMARY: 100}, "", rehearsed=self._rehearsed)

    async def sample(self, requests: int) -> Observed:
        """Send real requests where there is a listener; they are answered as always."""
        live = await self.configured()
        return await self._sampler.sample(live, requests) if self._sampler else live

    def _wrong(self, plan: RoutePlan) -> str:
        unknown = [pool for pool, weight in plan.weights.items() if weight and pool not in self._pools]
        return f"the fleet has no pool {', '.join(unknown)}" if unknown else ""


def _spell(plan: RoutePlan) -> str:
    text = (
        ", ".join(f"{pool} {weight} %" for pool, weight in plan.weights.items() if weight) + f" at level {plan.level}"
    )
    text += f", shed to {plan.shed.rate:g}/s" if plan.shed else ""
    return text + (f", cordon {', '.join(plan.cordoned)}" if plan.cordoned else "")
