"""The part of the API that rolls a new version out; `app` adds it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.degradation.actuator import Receipt
from controlplane.errors import UsageError
from controlplane.flows.rollout import Refused
from controlplane.policy import quantity
from controlplane.web.answers import json_answer, problem
from controlplane.web.shapes import gives

StartRollout = Callable[[str, str, tuple[float, ...], timedelta, str], Awaitable[Receipt | Refused]]
"""Service, pool, steps, hold, who asks."""


class RolloutBody(BaseModel):
    """The body of a request to roll a pool out."""

    model_config = ConfigDict(extra="forbid")
    service: str = Field(max_length=128)
    to: str = Field(max_length=128)
    steps: list[str] = Field(default=["10%", "50%", "100%"], min_length=1, max_length=20)
    hold: str = "60s"
    requested_by: str = Field(default="api", max_length=128)

    def read(self) -> tuple[tuple[float, ...], timedelta]:
        """Return the steps and the hold with their units read.

        Raises:
            UsageError: when a unit is wrong.
        """
        try:
            return tuple(quantity.ratio(step) for step in self.steps), quantity.duration(self.hold)
        except ValueError as error:
            raise UsageError("the rollout is not usable", f"expected {error}", "mend `steps` or `hold`") from error


class AbortBody(BaseModel):
    """The body of a request to call a rollout off."""

    model_config = ConfigDict(extra="forbid")
    requested_by: str = Field(default="api", max_length=128)


def add_rollouts(
    app: FastAPI,
    start: StartRollout,
    abort: Callable[[str], Awaitable[Receipt | Refused]],
    newest: Callable[[], Awaitable[Receipt | None]],
) -> None:
    """Add the routes.

    Args:
        app: the application.
        start: begins a rollout.
        abort: calls it off, for somebody.
        newest: returns the newest rollout's receipt.
    """

    @app.post("/api/v1/rollouts", status_code=202, tags=["degradation"], responses=gives(Receipt, 202, "It begins."))
    async def begin(body: RolloutBody) -> JSONResponse:
        """Give a pool traffic by steps, judged at each; 409 with the reason when that may not begin."""
        steps, hold = body.read()
        begun = await start(body.service, body.to, steps, hold, body.requested_by)
        return (
            problem(409, "the rollout may not begin", begun.why)
            if isinstance(begun, Refused)
            else json_answer(begun, 202)
        )

    @app.post("/api/v1/rollouts/abort", tags=["degradation"], responses=gives(Receipt))
    async def call_off(body: AbortBody) -> JSONResponse:
        """Call the rollout off: all traffic goes back to the primary pool."""
        ended = await abort(body.requested_by)
        return (
            problem(409, "nothing is called off", ended.why) if isinstance(ended, Refused) else json_answer(ended, 200)
        )

    @app.get("/api/v1/rollouts/newest", tags=["degradation"], responses=gives(Receipt | None))
    async def last() -> JSONResponse:
        """Return the newest rollout's receipt, or null."""
        return json_answer(await newest())
