"""Turning whatever goes wrong into a problem document (RFC 9457). Called by `app`."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from controlplane.errors import ControlplaneError, UsageError
from controlplane.web.answers import problem
from controlplane.web.guard import SECURITY_HEADERS
from controlplane.web.pages.wrong import problem_page, reads_pages

log = structlog.get_logger("web")


def add_problems(app: FastAPI) -> None:
    """Answer every error with what is wrong, why, and the way out."""

    @app.exception_handler(ControlplaneError)
    async def ours(_: Request, error: ControlplaneError) -> JSONResponse:
        return problem(400 if isinstance(error, UsageError) else 503, error.what, error.why, error.fix)

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, error: StarletteHTTPException) -> JSONResponse:
        response = problem(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [{"where": ".".join(map(str, e["loc"])), "what": str(e["msg"])} for e in error.errors()]
        return problem(422, "the request is not valid", errors=wrong)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("unforeseen", path=request.url.path, exc_info=error)
        response: Response = problem(
            500, "something went wrong in the control plane", "its log says what", "report it with it"
        )
        if reads_pages(request.scope):  # This handler stands outside of whatever else would turn it into a page ...
            response = HTMLResponse(problem_page(request.scope, bytes(response.body)), 500)
        response.headers.update(SECURITY_HEADERS)  # ... and outside the guard.
        return response
