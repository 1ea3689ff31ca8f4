"""Errors as HTTP clients see them: OpenAI's envelope with a hint, and the same codes as on the command line.

Rule: every answer that is no success has this one shape, whoever made it: a route, the guard, or the framework.
Pure: no I/O, no clock.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dimnode.errors import ConfigError, DimError, PeerFault, Refused, RunFailed

_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    416: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
"""The `type` of each status that this door ever gives."""

_STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "E-http-01": 401,
    "E-http-02": 403,
    "E-http-03": 403,
    "E-http-04": 403,
    "E-http-05": 415,
    "E-http-06": 413,
    "E-http-07": 429,
    "E-http-08": 429,
    "E-http-09": 409,
    "E-http-10": 404,
    "E-http-11": 405,
    "E-http-12": 503,
    "E-http-17": 503,
    "E-http-18": 416,
    "E-input-05": 413,
    "E-models-01": 404,
    "E-models-02": 409,
    "E-models-06": 413,
    "E-models-20": 403,
    "E-models-21": 403,
    "E-models-22": 403,
    "E-models-23": 403,
    "E-models-24": 409,
    "E-models-25": 403,
    "E-models-30": 503,
    "E-models-35": 409,
    "E-models-36": 404,
    "E-models-37": 403,
    "E-models-41": 404,
    "E-models-42": 404,
    "E-models-43": 404,
    "E-models-44": 409,
    "E-models-45": 503,
    "E-models-46": 409,
    "E-p2p-61": 503,
    "E-store-31": 503,
    "E-peers-01": 404,
    "E-job-12": 409,
    "E-job-13": 404,
    "E-job-15": 404,
    "E-jobs-03": 503,
    "E-jobs-04": 503,
    "E-jobs-10": 503,
    "E-jobs-11": 409,
    "E-jobs-24": 503,
    "E-api-04": 413,
    "E-api-05": 503,
    "E-exec-25": 503,
    "E-cli-31": 503,
    "E-store-01": 503,
    "E-store-04": 500,
    "E-store-09": 503,
}
"""Where a code says more than its family does. What is not here and not to be tried later is the client's mistake."""

SECONDS_TO_RETRY: Final = 1


@dataclass(frozen=True, slots=True)
class Said:
    """One error, ready to be sent."""

    status: int
    body: dict[str, Any]
    retry_after_seconds: int = 0

    def headers(self) -> dict[str, str]:
        """Retry-After and WWW-Authenticate where the status wants them."""
        found = {}
        if self.retry_after_seconds:
            found["Retry-After"] = str(self.retry_after_seconds)
        if self.status == 401:
            found["WWW-Authenticate"] = 'Bearer realm="dimnode"'
        return found

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(self.body, ensure_ascii=False).encode(errors="replace")  # half a surrogate pair is no text


def said(error: DimError, param: str | None = None) -> Said:
    """The answer to a refused request."""
    found = error.complaint
    retry_ms = error.retry_after_ms if isinstance(error, Refused) else 0
    status = _STATUS_OF_CODE.get(found.code) or (429 if retry_ms else 400)
    if not isinstance(error, Refused | ConfigError | RunFailed) and found.code not in _STATUS_OF_CODE:
        status = 500
    message = found.what + (f": {found.cause}" if found.cause else "")
    seconds = max(SECONDS_TO_RETRY, -(-retry_ms // 1000)) if status in (429, 503) else 0
    return Said(status, envelope(status, found.code, message, found.hint, param), seconds)


def said_fault(fault: PeerFault) -> Said:
    """Bytes of the client's that are not what they should be."""
    return Said(400, envelope(400, "E-http-13", fault.rule))


def said_invalid(place: str, why: str) -> Said:
    """A body or parameter that does not fit its schema; `place` is a dotted path."""
    return Said(400, envelope(400, "E-http-13", f"{place}: {why}", "docs/http.md, or /docs on this node", place))


def said_bug() -> Said:
    """Our own mistake: nothing about it leaves the node but that it happened."""
    return Said(500, envelope(500, "E-http-99", "a bug in dimnode", "report the lines in the node's log"))


def envelope(status: int, code: str, message: str, hint: str = "", param: str | None = None) -> dict[str, Any]:
    """{"error": {"message", "type", "param", "code", "hint"}}"""
    return {"error": {"message": message, "type": _TYPES[status], "param": param, "code": code, "hint": hint}}
