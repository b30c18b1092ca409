"""The plan of a release: everything that its verdict depends on, written once at its start and never changed.

``releases/<model>/<id>/plan.json``. Edits of a model file, a new champion elsewhere or an upgrade of this code do not
reach a release that is under way: it goes on with what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from genai_operators.compute.owners import Owner
from genai_operators.exceptions import ObjectNotFound
from genai_operators.serving.contract import Deployment, OutputKind, ServeOptions
from genai_operators.spec.canary import OnDeadline
from genai_operators.store import Store, canonical_json, sha256_bytes

if TYPE_CHECKING:
    from genai_operators.decisions.sequential import Guardrail as SequentialGuardrail
    from genai_operators.decisions.sequential import Plan as SequentialPlan
    from genai_operators.decisions.sequential_blast import BlastRadius

PLAN_VERSION = 2
#: Version 1 had no ``kind`` of a guardrail, no tokens, no money in its blast radius: their defaults mean the same.
READABLE_VERSIONS = (1, PLAN_VERSION)
RELEASE_ID_LENGTH = 16

ERRORS = "errors"
INVALID_OUTPUT = "invalid_output"
REFUSAL = "refusal"
NEGATIVE_FEEDBACK = "negative_feedback"
SLOW_FIRST_TOKEN = "slow_first_token"  # noqa: S105 - no password: a token of text
LONG_GAP = "long_gap"
GUARDRAILS = (ERRORS, INVALID_OUTPUT, REFUSAL, NEGATIVE_FEEDBACK, SLOW_FIRST_TOKEN, LONG_GAP)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Frozen):
    """A share of the traffic, and the least time and count on it."""

    percent: float = Field(gt=0, le=100)
    minimum_soak_s: float = Field(ge=0)
    minimum_requests: int = Field(ge=0)


class GuardrailPlan(_Frozen):
    """One kind of bad outcome; see :class:`genai_operators.decisions.sequential.Guardrail` for the meaning.

    :param kind: what is judged, one of :data:`GUARDRAILS`; by default what ``name`` says.
    :param limit_ms: for ``slow_first_token`` and ``long_gap``: a longer time is bad. Fixed before the release.
    """

    name: str
    kind: str | None = None
    alpha_weight: float = 1.0
    harm_ratio: float = 1.0
    margin: float = 2.0
    ceiling: float | None = None
    limit_ms: float | None = None

    @property
    def judged_as(self) -> str:
        """One of :data:`GUARDRAILS`."""
        return self.kind or self.name

    def question(self) -> SequentialGuardrail:
        """What the statistics ask."""
        from genai_operators.decisions.sequential import Guardrail

        return Guardrail(**self.model_dump(exclude={"limit_ms", "kind"}))


class Baseline(_Frozen):
    """What the champion did just before the release: the thresholds and the arithmetic of the plan rest on it.

    :param seconds: length of the window that was looked at; ``requests`` in it.
    :param duration_p99_ms: all but one request in a hundred had ended after this time.
    :param limits_ms: by kind of guardrail and quantile: what so many of the champion's times were within.
    :param bad: share of bad requests by guardrail, where it could be told.
    """

    requests: int = 0
    seconds: float = 0.0
    first_token_p50_ms: float | None = None
    first_token_p95_ms: float | None = None
    duration_p99_ms: float | None = None
    limits_ms: dict[str, dict[float, float]] = Field(default_factory=dict)
    bad: dict[str, float] = Field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0


class ReleasePlan(_Frozen):
    """A candidate, who it is compared with, and by which rules.

    :param release: the release's id, see :func:`release_id`.
    :param champion: ``None`` for the first deployment of a model: then there is nothing to compare with and no canary.
    :param ledger_epoch: epoch of the ledger when the plan was made; the promotion is written as the next one or not at
        all.
    :param since: position in the traffic from which on the release observes.
    :param on_deadline: ``hold``: the canary goes on at its present share; harm still rolls it back, proved health still
        promotes it. ``ask``: it goes to 0 % and a person decides. ``roll_back``: the champion stays.
    :param settle_s: a request is judged this long after it arrived at the earliest: by then slower ones have ended too.
    :param ready_timeout_s: longest wait for a server.
    :param warm_up_s: requests this soon after the first are left out of the evidence.
    :param incident_window_s: failures of one cause that follow each other this closely count as one event.
    :param ceiling_soak_s: how long evidence is gathered before a ceiling may certify; ``None`` (plans of older
        versions): the steps' soaks.
    :param blast_requests, blast_users, blast_tokens, blast_cost: most that the candidate may meet, generate and cost
        before it is promoted; ``None``: no limit.
    :param cost_per_hour, cost_per_1k_tokens: of the candidate's server and of what it generates.
    :param serve: :class:`~genai_operators.serving.contract.ServeOptions` as JSON.
    :param evidence: references for the ledger: ``model`` (URI), ``evaluation``, ``dataset``, ...
    :param notes: what a reader of the report should know, e.g. a guardrail that could not be set up.
    """

    version: int = PLAN_VERSION
    release: str
    model: str
    owner: Owner
    created_at: float
    candidate: Deployment
    champion: Deployment | None
    ledger_epoch: int
    since: int
    steps: tuple[Step, ...]
    guardrails: tuple[GuardrailPlan, ...]
    alpha: float = 0.05
    beta: float = 0.05
    deadline_s: float
    on_deadline: OnDeadline = OnDeadline.ROLL_BACK
    blast_requests: int | None = None
    blast_users: int | None = None
    blast_tokens: int | None = None
    blast_cost: float | None = None
    cost_per_hour: float = 0.0
    cost_per_1k_tokens: float = 0.0
    settle_s: float = 10.0
    ready_timeout_s: float = 300.0
    warm_up_s: float = 0.0
    incident_window_s: float = 120.0
    ceiling_soak_s: float | None = None
    baseline: Baseline = Baseline()
    serve: dict[str, Any] = Field(default_factory=dict)
    evidence: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """Where everything about this release is stored."""
        return release_directory(self.model, self.release)

    @property
    def actor(self) -> str:
        """Who stands in the ledger."""
        return f"{self.owner.dag_id}/{self.owner.run_id}/{self.owner.task_id}"

    @field_validator("version")
    @classmethod
    def _known_version(cls, version: int) -> int:
        if version not in READABLE_VERSIONS:
            raise ValueError(f"release plan version {version}; this code reads {READABLE_VERSIONS}")
        return version

    @property
    def blast_radius(self) -> BlastRadius:
        """The budget."""
        from genai_operators.decisions.sequential_blast import BlastRadius

        return BlastRadius(
            requests=self.blast_requests, users=self.blast_users, tokens=self.blast_tokens, cost=self.blast_cost
        )

    def guardrail(self, name: str) -> GuardrailPlan | None:
        """The guardrail of a name, if it is part of this release."""
        return next((guardrail for guardrail in self.guardrails if guardrail.name == name), None)

    def freeze(self, store: Store) -> ReleasePlan:
        """Write the plan unless the release has one; what stands in the store is returned and counts."""
        store.create_json(f"{self.directory}/plan.json", self.model_dump(mode="json"))
        return type(self).load(store, self.model, self.release)

    @classmethod
    def load(cls, store: Store, model: str, release: str) -> Self:
        """:raises ObjectNotFound: when there is no such release."""
        return cls.model_validate(store.get_json(f"{release_directory(model, release)}/plan.json"))

    @classmethod
    def find(cls, store: Store, model: str, release: str) -> Self | None:
        """Like :meth:`load`, ``None`` when there is no such release."""
        try:
            return cls.load(store, model, release)
        except ObjectNotFound:
            return None


def release_directory(model: str, release: str) -> str:
    """``releases/<model>/<id>``."""
    return f"releases/{model}/{release}"


def release_id(owner: Owner, candidate: Deployment) -> str:
    """The release of a task run for a candidate: a retry finds its own again, the next run makes a new one."""
    key = {"owner": owner.to_json(), "version": candidate.version, "digest": candidate.digest}
    return sha256_bytes(canonical_json({**key, "runtime": candidate.runtime}))[:RELEASE_ID_LENGTH]


def serve_options_to_json(options: ServeOptions) -> dict[str, Any]:
    """Plain JSON types of :class:`ServeOptions`."""
    record = asdict(options)
    return {**record, "runtimes": {name: list(command) for name, command in options.runtimes.items()}}


def serve_options_from_json(record: Mapping[str, Any]) -> ServeOptions:
    """Inverse of :func:`serve_options_to_json`; missing fields have their defaults."""
    known = dict(record)
    known["runtimes"] = {name: tuple(command) for name, command in known.get("runtimes", {}).items()}
    known["output"] = OutputKind(known.get("output", OutputKind.TEXT))
    return ServeOptions(**known)


def sequential_plans(plan: ReleasePlan) -> dict[str, SequentialPlan]:
    """The statistical questions: one about requests, one about feedback, which arrives long after its request.

    The two share ``alpha`` by weight (a union bound), so together they raise a false alarm with at most ``alpha``.
    """
    from genai_operators.decisions.sequential import Plan

    total = sum(guardrail.alpha_weight for guardrail in plan.guardrails)
    soak_s = plan.ceiling_soak_s
    if soak_s is None:
        soak_s = sum(step.minimum_soak_s for step in plan.steps)
    plans = {}
    for name, late in (("requests", False), ("feedback", True)):
        chosen = [g for g in plan.guardrails if (g.judged_as == NEGATIVE_FEEDBACK) == late]
        if chosen:
            share = sum(guardrail.alpha_weight for guardrail in chosen) / total
            plans[name] = Plan(
                guardrails=tuple(g.question() for g in chosen),
                alpha=plan.alpha * share,
                beta=plan.beta,
                **({"split_alpha": None} if late else {}),  # who sends feedback depends on the answer
                minimum_soak_s=soak_s,
                warm_up_s=plan.warm_up_s,
                incident_window_s=plan.incident_window_s,
            )
    return plans
