"""What the API's answers look like, as JSON schemas for OpenAPI: written from the types that are answered with.

The rules are those by which `answers.json_answer` writes a value: a duration is a number of seconds, a time is RFC
3339, and a number that is endless is null.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from inspect import getdoc
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "number", "description": "Seconds."},
    type(None): {"type": "null"},
}

PROBLEM: Schema = {
    "type": "object",
    "description": "What is wrong, why, and the way out (RFC 9457).",
    "required": ["type", "title", "status", "detail", "fix"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "What is wrong."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "Why."},
        "fix": {"type": "string", "description": "The way out."},
    },
    "examples": [
        {"type": "about:blank", "title": "no drill 0f3a", "status": 404, "detail": "", "fix": ""},
    ],
}


_KINDS: dict[str, Any] = {}
"""The types that routes answer with, by their names: FastAPI carries nothing but JSON from a route to its document."""


def gives(kind: Any, status: int = 200, said: str = "Done.", **headers: str) -> dict[int | str, dict[str, Any]]:
    """Describe an answer for a route's `responses`.

    Args:
        kind: the type that it is written from.
        status: its status.
        said: what it means, in a sentence.
        headers: what it carries besides, by name with `_` for `-`.
    """
    _KINDS[repr(kind)] = kind
    described: dict[str, Any] = {
        "description": said,
        "content": {"application/json": {"schema": {"x-type": repr(kind)}}},
    }
    if headers:
        described["headers"] = {
            name.replace("_", "-"): {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    return {status: described}


def pages(kind: Any) -> dict[int | str, dict[str, Any]]:
    """Describe a page of a list."""
    return gives(tuple[kind, ...], said="A page of the list.", Link="The next page, where there is one (RFC 8288).")


def spelled_out(document: Schema) -> None:
    """Put schemas in the place of the types that `gives` left in an OpenAPI document."""
    known: dict[str, Schema] = {}
    for operation in _operations(document):
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                schema = content.get("schema", {})
                if "x-type" in schema:
                    content["schema"] = schema_of(_KINDS[schema["x-type"]], known)
    document.setdefault("components", {}).setdefault("schemas", {}).update(known)


def _operations(document: Schema) -> Iterable[Schema]:
    return (operation for item in document["paths"].values() for operation in item.values())


def schema_of(kind: Any, known: dict[str, Schema]) -> Schema:
    """Return the schema of a type; what has a name goes into `known`, and is referred to.

    Args:
        kind: a type that the API answers with.
        known: schemas by their names, added to.

    Raises:
        TypeError: when the rules know nothing of it.
    """
    if kind is Any or kind is object:
        return {}
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of([schema_of(part, known) for part in parts])
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(parts[1], known)}
    if origin is tuple and parts[-1] is not ...:
        return {"type": "array", "prefixItems": [schema_of(part, known) for part in parts], "minItems": len(parts)}
    if origin is not None and issubclass(origin, Iterable):
        return {"type": "array", "items": schema_of(parts[0], known)}
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return {"type": "string"}
    if isinstance(kind, type) and (issubclass(kind, Enum | msgspec.Struct) or is_dataclass(kind)):
        return _named(kind, known)
    raise TypeError(f"no schema for {kind}")


def _one_of(kinds: list[Schema]) -> Schema:
    if all(set(kind) == {"type"} for kind in kinds):
        names = [name for kind in kinds for name in ([kind["type"]] if isinstance(kind["type"], str) else kind["type"])]
        return {"type": list(dict.fromkeys(names))}
    return {"anyOf": kinds}


def _named(kind: type, known: dict[str, Schema]) -> Schema:
    name = kind.__name__
    if name not in known:
        known[name] = {}  # It may hold itself.
        if issubclass(kind, Enum):
            known[name] = {"type": "string", "enum": [member.value for member in kind]}
        else:
            hints = get_type_hints(kind)
            names = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else [f.name for f in fields(kind)]  # type: ignore[arg-type]
            properties = {name: schema_of(hints[name], known) for name in names}
            known[name] = {"type": "object", "properties": properties, "required": sorted(properties)}
        known[name]["x-of"] = f"{kind.__module__}.{name}"
        if said := (getdoc(kind) or "").partition("\n")[0]:
            known[name]["description"] = said
    elif known[name] and known[name]["x-of"] != f"{kind.__module__}.{name}":
        raise TypeError(f"two types are called {name}")
    return {"$ref": _REF + name}
