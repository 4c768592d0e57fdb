"""The API's description (OpenAPI): what `shapes` knows of answers, what each operation needs, and how each says no."""

from typing import Any

from controlplane.security.roles import Need
from controlplane.web.access import NEEDS
from controlplane.web.shapes import PROBLEM, spelled_out

_WRITES = ("post", "put", "patch", "delete")
_KEY = {
    "name": "Idempotency-Key", "in": "header", "required": False,
    "description": "The same key with the same body is done once, and answered alike for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}  # fmt: skip
_HELD = {
    "name": "If-None-Match", "in": "header", "required": False,
    "description": "The ETag of an answer that is held; 304 says that it still holds.",
    "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"},
}  # fmt: skip


def described(document: dict[str, Any]) -> dict[str, Any]:
    """Complete an OpenAPI document; each operation's id is its method and path, which stay."""
    spelled_out(document)
    parts = document.setdefault("components", {})
    parts["schemas"] = {
        name: schema for name, schema in parts.get("schemas", {}).items()
        if name not in ("HTTPValidationError", "ValidationError")
    } | {"ProblemDocument": PROBLEM}  # fmt: skip
    for schema in parts["schemas"].values():
        schema.pop("x-of", None)
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token, or the state directory's own."},
        "session": {"type": "apiKey", "in": "cookie", "name": "controlplane", "description": "The console's."},
    }
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete(path, method, operation)
    return document


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    need = NEEDS.get((method.upper(), path), Need.ADMIN)
    operation["operationId"] = _id(method, path)
    operation["x-needs"] = need.value
    operation["security"] = [] if need is Need.ANYONE else [{"token": []}, {"session": []}]
    in_api = path.startswith("/api/v1/")
    if in_api and method in ("get", "post"):
        operation.setdefault("parameters", []).append(dict(_KEY if method == "post" else _HELD))
    responses = operation["responses"]
    responses.pop("422", None)
    for status, said in _refusals(method, operation, need).items():
        responses.setdefault(status, {
            "description": said,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        })  # fmt: skip
    if in_api and method == "get":
        responses["304"] = {"description": "What was named by If-None-Match still holds."}
        responses["200"].setdefault("headers", {})["ETag"] = {
            "description": "Names this answer.", "schema": {"type": "string"},
        }  # fmt: skip


def _refusals(method: str, operation: dict[str, Any], need: Need) -> dict[str, str]:
    """Return how an operation can say no, by status."""
    found: dict[str, str] = {}
    takes = [one["in"] for one in operation.get("parameters", [])]
    if takes or "requestBody" in operation:
        found |= {"400": "A value cannot be used.", "422": "The request is not valid."}
    if "path" in takes:
        found["404"] = "There is no such thing."
    if need is not Need.ANYONE:
        found |= {
            "401": "No valid credential came with the request.",
            "403": f"The credential does not open what needs a {need}.",
            "429": "Too many wrong credentials from this address, or too many writes.",
        }
    if method in _WRITES:
        found |= {
            "404": "There is no such thing.",
            "408": "The body did not come in time.",
            "409": "It may not be done now, or is being done already.",
            "413": "The body is too large.",
        }
    if need is not Need.ANYONE or method in _WRITES:
        found["503"] = "What is needed for it does not answer; nothing was done."
    return found


def _id(method: str, path: str) -> str:
    """Return an operation's name, such as `get_drills_drill_id_report`."""
    parts = path.removeprefix("/api/v1").replace("{", "").replace("}", "").replace(".", "_").strip("/")
    return "_".join((method, *(part.replace("-", "_") for part in parts.split("/") if part)))
