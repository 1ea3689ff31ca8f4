"""The OpenAPI document of this door: what FastAPI finds in the routes, completed by what it cannot see there.

Rule: the document says what the door really answers: keys, the one error shape under each status, headers in and out,
bytes as bytes, and an example wherever a client needs one. `python -m dimnode.api.http.spec` prints it, as it is
shipped in clients/http/openapi.json.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dimnode.api.http.complaints import envelope
from dimnode.api.http.examples import BODIES, ERROR_WORDS, PARAMETERS, REQUESTS, STREAM
from dimnode.api.http.guard import OPEN_PATHS, STREAMED
from dimnode.api.http.inside import ERRORS

Map = dict[str, Any]

ABOUT: Final = """Submit, watch and fetch inference jobs of this dimnode. Every answer has a signed receipt that
verifies offline.

Every request but `/health`, `/ready`, `/docs` and `/openapi.json` wants a key: `Authorization: Bearer KEY`, made by
`dim keys new`. Every answer that is no success has the shape of `ErrorOut`, also `405` for a method that a path does
not take.

**WebSockets.** `WS /dim/v1/jobs/{job}/ws` and `WS /ws/jobs/{jobId}` (scope `read`) send the events of a job as text
messages, each one an `EventOut`, and close with 1000 after `ended`; `?after=ID` goes on after an event. Where headers
cannot be set, the key is the subprotocol `bearer.KEY`, beside `dimnode.v1`. A handshake that is refused is answered
with the status and shape of any other request.
"""
_TAGS: Final[Mapping[str, str]] = {
    "jobs": "Check, hand in, list, look at, follow and cancel jobs; their receipts.",
    "blobs": "Bytes up and down, streamed.",
    "models": "What can be run.",
    "data": "Cabinets: names and columns, never rows.",
    "swarm": "Peers, and what this node thinks of them.",
    "node": "This node.",
    "OpenAI": "Questions in OpenAI's shape.",
    "classic DIM": "For clients of existing DIM servers.",
}
_HEADERS_OUT: Final[Mapping[str, tuple[str, str]]] = {
    "X-Request-Id": (
        "The request's id: the client's own, or a fresh one. It stands in the node's log.",
        "7f3a09c25d1e4b68",
    ),
    "X-Dimnode-Receipt": (
        "Of an ended job: the id of its verdict, the root of its receipt.",
        BODIES["JobOut"]["verdict"],
    ),
    "X-Dimnode-Job": ("The id of the job that computed this.", BODIES["JobOut"]["job"]),
    "Retry-After": ("In how many seconds to come back.", "1"),
    "WWW-Authenticate": ("What kind of key is wanted.", 'Bearer realm="dimnode"'),
    "Content-Disposition": ("A file to be saved, never to be shown.", "attachment"),
    "Content-Range": ("Which bytes of how many.", "bytes 0-9/1000"),
}
_OF_STATUS: Final[Mapping[str, tuple[str, ...]]] = {
    "206": ("Content-Range",),
    "401": ("WWW-Authenticate",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
_OF_SHAPE: Final[Mapping[str, tuple[str, ...]]] = {
    "JobOut": ("X-Dimnode-Receipt",),
    "JobResultOut": ("X-Dimnode-Receipt",),
    "EmbeddingsOut": ("X-Dimnode-Receipt", "X-Dimnode-Job"),
}
_PARAMETERS: Final[Mapping[str, Map]] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "An id of your own for this request, such as `order-1`: 1 to 64 of A-Z a-z 0-9 . _ -; any other "
        "is replaced.",
        "schema": {"type": "string"},
    },
    "TraceParent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C trace context: it travels with the job. What is none is passed over. Such as "
        "`00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.",
        "schema": {"type": "string"},
    },
}
_BINARY: Final[Map] = {"type": "string", "format": "binary"}
_ERRORS: Final = {**ERRORS, 416: {"description": "nothing is there to be had"}}
_UNUSED: Final = ("HTTPValidationError", "ValidationError")


def document(app: FastAPI) -> Map:
    """The whole document, made of the app's routes. Deterministic."""
    found: Map = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
    parts = found["components"]
    for unused in _UNUSED:
        parts["schemas"].pop(unused, None)
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "A key of `dim keys new`."}}
    parts["headers"] = {name: _header_out(*said) for name, said in _HEADERS_OUT.items()}
    parts["parameters"] = dict(_PARAMETERS)
    parts["responses"] = {
        f"Error{status}": _error(int(status), said["description"]) for status, said in _ERRORS.items()
    }
    found["tags"] = [{"name": name, "description": words} for name, words in _TAGS.items()]
    for path, _, operation in operations(found):
        _complete(path, operation)
    return found


def operations(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Map]]:
    """(path, method, operation) of each request in the document."""
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def render(found: Mapping[str, Any]) -> str:
    """As it is shipped: indented, in the order of the routes."""
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def _complete(path: str, operation: Map) -> None:
    operation["security"] = [] if path in OPEN_PATHS else [{"key": []}]
    for parameter in operation.setdefault("parameters", []):
        words, example = PARAMETERS[parameter["name"]]
        parameter.setdefault("description", words)
        if (
            parameter["in"] == "path"
        ):  # the page fills examples into its forms: of what may be left out, they would hurt
            parameter["example"] = example
    operation["parameters"].append({"$ref": "#/components/parameters/RequestId"})
    if path not in OPEN_PATHS:
        operation["parameters"].append({"$ref": "#/components/parameters/TraceParent"})
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind != STREAMED:
            content["examples"] = {name: {"value": body} for name, body in REQUESTS[_shape(content)].items()}
    responses = operation["responses"]
    responses.pop("422", None)  # what FastAPI would answer is a 400 here
    for status, response in list(responses.items()):
        contents = response.get("content", {})
        if [_shape(content) for content in contents.values()] == ["ErrorOut"]:
            responses[status] = {"$ref": f"#/components/responses/Error{status}"}
        else:
            _complete_response(status, response)


def _complete_response(status: str, response: Map) -> None:
    names = ["X-Request-Id", *_OF_STATUS.get(status, ())]
    for kind, content in response.get("content", {}).items():
        shape = _shape(content)
        names += _OF_SHAPE.get(shape, ())
        if kind == "text/event-stream":
            content["example"] = STREAM
        elif kind == "application/json":
            content["example"] = BODIES[shape]
        elif not kind.startswith("text/"):
            content["schema"] = _BINARY
            names += ["Content-Disposition", *(["X-Dimnode-Receipt"] if kind != STREAMED else [])]
    response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in dict.fromkeys(names)}


def _error(status: int, words: str) -> Map:
    code, message, hint = ERROR_WORDS[status]
    names = ("X-Request-Id", *_OF_STATUS.get(str(status), ()))
    schema = {"$ref": "#/components/schemas/ErrorOut"}
    return {
        "description": words,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {"application/json": {"schema": schema, "example": envelope(status, code, message, hint)}},
    }


def _header_out(words: str, example: str) -> Map:
    return {"description": words, "schema": {"type": "string"}, "example": example}


def _shape(content: Mapping[str, Any]) -> str:
    """The name of the schema of this content; of several, the first."""
    schema = content.get("schema", {})
    reference = schema.get("$ref") or (schema.get("anyOf") or [{}])[0].get("$ref", "")
    return str(reference).rpartition("/")[2]


def main() -> None:
    """Print the document."""
    from dimnode.api.http.app import bare_app  # the app asks this module for the document

    print(render(document(bare_app())), end="")  # noqa: T201 printing is what this command is for


if __name__ == "__main__":
    main()
