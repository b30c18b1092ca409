"""What every serving target offers, and the records that come out of it. No target, no Airflow, stdlib only.

A *deployment* is one model version run by one runtime. A model has two *slots*: ``champion`` and ``canary``. A target
starts and stops servers and moves weights; it decides nothing. Every method may be repeated after a crash.

Times are seconds since the epoch (UTC, float); durations are milliseconds where the name ends in ``_ms``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, Self

STANDARD_RUNTIME = "standard"


class Slot(StrEnum):
    """The two places of a model."""

    CHAMPION = "champion"
    CANARY = "canary"


class OutputKind(StrEnum):
    """What a valid answer of a model is: a JSON object, or any text that is not empty."""

    JSON = "json"
    TEXT = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Where the local gateway and its supervisor are, and what they may use.

    :param gateway_url: base URL that users call, for example ``http://127.0.0.1:8080``.
    :param admin_url: base URL of Envoy's admin interface (unauthenticated, hence loopback).
    :param supervisor: path of the unix socket of the platform's supervisord.
    :param directory: the gateway's own files: state, Envoy's configuration, program files, logs.
    :param workload_python: Python of the workload environment; ``{python}`` in runtime templates.
    :param project_root: ``{project}`` in runtime templates.
    """

    gateway_url: str
    admin_url: str
    supervisor: Path
    directory: Path
    workload_python: str
    project_root: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What a model file says about serving.

    :param runtimes: command templates by name; ``standard`` is built in. Placeholders: ``{python}``, ``{project}``,
        ``{model_dir}``, ``{name}`` (the public model name), ``{port}``. A server runs in a directory where ``{name}``
        is a link to the model's directory.
    :param output: what a valid answer is.
    :param retention_s: captured prompts and answers are deleted when older than this.
    :param capture_bytes: most bytes of a request's or a response's body that are kept. 0 captures nothing.
    :param timeout_s: a request that takes longer ends with status 504.
    :param champion_retries: retries of a failed request on the champion. The canary is never retried: a retry hides a
        bad canary. With retries, count ``attempts > 1`` as bad, or the comparison is unfair.
    """

    runtimes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    output: OutputKind = OutputKind.TEXT
    retention_s: float = 30 * 86_400.0
    capture_bytes: int = 65_536
    timeout_s: float = 120.0
    champion_retries: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deployment:
    """One model version run by one runtime.

    :param model: the public model name that clients send.
    :param version: registry version.
    :param digest: digest of the model directory's manifest.
    :param model_dir: local directory with the weights; whoever deploys has verified it.
    :param runtime: name of the command template.
    """

    model: str
    version: int
    digest: str
    model_dir: str
    runtime: str = STANDARD_RUNTIME

    @property
    def id(self) -> str:
        """Name of the server and of its upstream cluster."""
        return f"{self.model}-v{self.version}-{self.runtime}"

    def same_as(self, other: Deployment) -> bool:
        """The same weights under the same runtime, wherever their directory lies?"""
        return self.id == other.id and self.digest == other.digest

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**{field.name: value[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteAck:
    """The gateway acknowledged a route: requests that arrive from now on meet ``percent``."""

    route_version: int
    percent: float
    acknowledged_at: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestFact:
    """One request, without its text.

    :param request_id: keyed hash of the ``x-request-id`` that the client saw.
    :param unit: keyed hash of the user (the body's ``user`` field or the ``x-genai-user`` header); without one, the
        request's own id: every request is its own unit.
    :param arrived_at: when the gateway had the request's headers.
    :param completed_at: when its last byte was answered. Facts are published in this order, so sort by ``arrived_at``
        and wait for stragglers before testing: the slower arm completes later.
    :param propensity: probability in [0, 1] that this request went to the canary, from the very route that decided it.
    :param assigned: False when the client chose the variant by header; such a request is no part of the experiment.
    :param status: HTTP status; 502 when the answer broke off after its headers were sent; 499 when the client left.
    :param attempts: how often an upstream was tried; above 1 a retry hid a failure. 0: no upstream was reached.
    :param first_token_ms: from arrival to the first streamed content; None when the answer was not streamed or empty.
    :param max_gap_ms: longest silence between two streamed contents; None below two.
    :param tokens: generated tokens: the server's own usage figure, else the number of streamed contents.
    :param valid_output: does the answer fit the model's ``output`` kind? None when unknown (failed, cut, not captured).
    :param refused: does the answer decline? None when unknown, and in facts written before this was looked at.
    """

    request_id: str
    unit: str
    arrived_at: float
    completed_at: float
    variant: Literal["champion", "canary"]
    deployment: str
    propensity: float
    route_version: int
    assigned: bool
    status: int
    attempts: int
    timed_out: bool
    first_token_ms: float | None
    max_gap_ms: float | None
    tokens: int | None
    duration_ms: float
    valid_output: bool | None
    refused: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        fields = [
            field for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING or field.name in value
        ]
        return cls(**{field.name: value[field.name] for field in fields})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedbackFact:
    """A user's judgement of one answer, without its text. ``request_id`` is hashed as in :class:`RequestFact`.

    Users may judge an answer more than once, and change their mind; every judgement is published.
    """

    request_id: str
    at: float
    rating: Literal["right", "wrong"]
    corrected: bool

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**{field.name: value[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservationBatch:
    """Facts from a position on. Ask again with ``since=next``; nothing is missed and nothing comes twice."""

    requests: tuple[RequestFact, ...]
    feedback: tuple[FeedbackFact, ...]
    next: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingStatus:
    """What the target was last told: who is in which slot, and the canary's share in percent."""

    champion: Deployment | None
    canary: Deployment | None
    percent: float
    route_version: int


class Serving(Protocol):
    """One model on one serving target. Idempotent, and safe from several processes at once.

    :raises GatewayUnavailable: the gateway or its supervisor does not answer; a retry helps.
    :raises ServingFailed: a server cannot run, or the request makes no sense in this state; a retry does not help.
    """

    def deploy(self, deployment: Deployment, *, slot: Literal["champion", "canary"]) -> None:
        """Start a server in a slot and return at once. A canary starts without traffic."""

    def ready(self, slot: Literal["champion", "canary"]) -> bool:
        """Does the slot's server answer, with one generated token? Raises when it died for good."""

    def set_weight(self, percent: float, *, release: str) -> RouteAck:
        """Send ``percent`` (0 to 100) to the canary; return when the gateway acknowledged the route."""

    def position(self) -> int:
        """Where :meth:`observations` of the future begin."""

    def observations(self, since: int) -> ObservationBatch:
        """Facts published at or after ``since``."""

    def promote(self) -> None:
        """Make the canary the champion, without a restart; retire the old champion when its requests have ended."""

    def rollback(self) -> None:
        """Return all traffic to the champion, then retire the canary."""

    def retire(self, slot: Literal["champion", "canary"]) -> None:
        """Empty a slot and stop its server."""

    def status(self) -> ServingStatus:
        """The slots and the split."""
