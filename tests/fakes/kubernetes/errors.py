"""Refusals, worded as the API server words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.kubernetes.kinds import Kind


class ApiError(Exception):
    """An answer with a ``Status`` body."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def status(self) -> dict[str, Any]:
        """The body."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body |= {"message": self.message, "reason": self.reason}
        if self.details:
            body["details"] = dict(self.details)
        return body | {"code": self.code}


def _about(kind: Kind, name: str) -> dict[str, Any]:
    return {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}


def not_found(kind: Kind, name: str) -> ApiError:
    """No such object."""
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', details=_about(kind, name))


class NoSuchPath(ApiError):
    """No such resource, e.g. of a group that is not installed: the one refusal without a ``Status``."""

    body = b"404 page not found\n"

    def __init__(self) -> None:
        super().__init__(404, "NotFound", "the server could not find the requested resource")


def already_exists(kind: Kind, name: str) -> ApiError:
    """The name is taken."""
    message = f'{kind.resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_about(kind, name))


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    """A precondition does not hold."""
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_about(kind, name))


def stale(kind: Kind, name: str) -> ApiError:
    """The writer had an older version."""
    return conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def invalid(kind: Kind, name: str, causes: Sequence[tuple[str, str, str]]) -> ApiError:
    """Refused by validation; causes are (field, reason, message)."""
    parts = [f"{field}: {message}" for field, _, message in causes]
    text = parts[0] if len(parts) == 1 else "[" + ", ".join(parts) + "]"
    listed = [{"reason": reason, "message": message, "field": field} for field, reason, message in causes]
    details = {"name": name, "group": kind.group, "kind": kind.name, "causes": listed}
    return ApiError(422, "Invalid", f'{kind.qualified} "{name}" is invalid: {text}', details=details)


def bad_request(message: str) -> ApiError:
    """The request makes no sense."""
    return ApiError(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    """Refused by admission or by access rules."""
    quoted = f' "{name}"' if name else ""
    return ApiError(403, "Forbidden", f"{kind.resource}{quoted} is forbidden: {why}", details=_about(kind, name))


def expired(message: str) -> ApiError:
    """The resource version is gone."""
    return ApiError(410, "Expired", message)


def unauthorized() -> ApiError:
    """No valid token."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def too_many_requests(retry_after_s: int) -> ApiError:
    """Throttled."""
    return ApiError(
        429,
        "TooManyRequests",
        "Too many requests, please try again later.",
        details={"retryAfterSeconds": retry_after_s},
        headers={"Retry-After": str(retry_after_s)},
    )


def server_error(code: int) -> ApiError:
    """A failing API server."""
    reasons = {500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
    messages = {
        500: "Internal error occurred: etcdserver: request timed out",
        503: "the server is currently unable to handle the request",
        504: "Timeout: request did not complete within the allotted timeout",
    }
    return ApiError(code, reasons.get(code, "InternalError"), messages.get(code, f"injected {code}"))
