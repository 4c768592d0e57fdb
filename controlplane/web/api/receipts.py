"""The API of the receipts: what was done, by which lever, and how it ended. Called by `app`."""

from typing import Annotated

from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse

from controlplane.degradation.actuator import Receipt
from controlplane.web.answers import json_answer
from controlplane.web.api.ports import WebPorts
from controlplane.web.paging import After, Limit, page_of, read_mark, spell_mark
from controlplane.web.shapes import gives, pages


def add_receipts(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/receipts", tags=["degradation"], responses=pages(Receipt))
    async def receipts(request: Request, limit: Limit = 50, after: After = "") -> JSONResponse:
        """List the newest actions first."""
        found = await ports.receipts(limit + 1, read_mark(after))
        return page_of(request, found, limit, lambda receipt: spell_mark((receipt.decided_at, receipt.id)))

    @app.get("/api/v1/receipts/{receipt_id:path}", tags=["degradation"], responses=gives(Receipt))
    async def receipt(receipt_id: Annotated[str, UrlPath(max_length=255)]) -> JSONResponse:
        """Return one action with the plan before and after it, and every step."""
        found = await ports.receipt(receipt_id)
        if found is None:
            raise HTTPException(404, "there is no such receipt")
        return json_answer(found)
