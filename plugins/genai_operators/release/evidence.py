"""The evidence of a release: facts of its traffic in, three verdicts out.

Facts come in the order in which requests *completed*; the statistics need the order in which they *arrived*, or a slow
arm looks good until its slow requests end. So a request waits behind a watermark until slower ones have ended too.
Feedback comes long after its request and on its own; it is a second question with its own state, in the order in which
feedback arrives. *Assumed* there: given that a request's feedback is bad, when it is given does not depend on the arm.
Users who complain faster about one arm would make it look worse for a while, and never in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genai_operators.decisions.verdict import Outcome, Verdict
from genai_operators.exceptions import DataError
from genai_operators.release.exposure import Exposure
from genai_operators.release.facts import belongs, cause_of, is_drawn, judge, judge_feedback
from genai_operators.release.plan import NEGATIVE_FEEDBACK, ReleasePlan, sequential_plans
from genai_operators.serving.contract import FeedbackFact, RequestFact

if TYPE_CHECKING:
    from genai_operators.decisions.sequential import Assessment, GuardrailEvidence, State

REQUESTS, FEEDBACK = "requests", "feedback"
#: With one server on each side an outage meets either with equal chance, whatever their shares of the traffic. Where
#: the canary has more than this, its share counts: an outage of what both stand on shows most where the traffic is.
OUTAGE_PROPENSITY = 0.5
#: Feedback on a request is waited for this long.
FEEDBACK_WINDOW_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The verdicts over all guardrails at one moment.

    :param evidence: figures by guardrail; logarithms of e-values.
    """

    harm: Verdict
    health: Verdict
    split: Verdict
    evidence: Mapping[str, GuardrailEvidence]
    culprit: str | None

    @property
    def harmful(self) -> bool:
        """Harm is proved."""
        return self.harm.outcome is Outcome.FAIL

    @property
    def split_intact(self) -> bool:
        """Nothing speaks against the asked split."""
        return self.split.outcome is not Outcome.FAIL

    @property
    def certified(self) -> bool:
        """Every guardrail is proved acceptable, and nothing speaks against the analysis."""
        return self.health.outcome is Outcome.PASS and not self.harmful and self.split_intact


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What a batch of facts adds, before any of it is taken in.

    :param ours: requests answered by one of the two deployments.
    :param final: drawn requests that became final, in order of arrival; ``pending``: those that are not yet.
    :param drawn: drawn requests of the batch by id: feedback on them may come.
    :param answered: (when, request, bad) for feedback that found its request; ``early``: feedback that did not yet.
    """

    newest: float
    ours: tuple[RequestFact, ...]
    final: tuple[RequestFact, ...]
    pending: tuple[RequestFact, ...]
    drawn: Mapping[str, RequestFact]
    answered: tuple[tuple[float, RequestFact, int], ...]
    early: Mapping[str, FeedbackFact]


class Evidence:
    """Accumulates the facts of a release. The same facts in the same order give the same states, bit for bit."""

    def __init__(self, plan: ReleasePlan) -> None:
        from genai_operators.decisions.sequential import start

        self._plan = plan
        self.states: dict[str, State] = {name: start(question) for name, question in sequential_plans(plan).items()}
        self.exposure = Exposure()
        self.settled_on_canary = 0
        self.newest_arrival = -math.inf
        self._newest = -math.inf
        self._pending: tuple[RequestFact, ...] = ()
        self._seen: dict[str, RequestFact] = {}
        self._early: dict[str, FeedbackFact] = {}
        self._answered: set[str] = set()

    def preview(self, requests: Sequence[RequestFact], feedback: Sequence[FeedbackFact]) -> dict[str, Any]:
        """The states, as JSON, after these facts; nothing is taken in."""
        states = self._advanced(self._intake(requests, feedback))
        return {name: state.to_json() for name, state in states.items()}

    def absorb(
        self,
        requests: Sequence[RequestFact],
        feedback: Sequence[FeedbackFact],
        *,
        states: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in what was observed next.

        :param states: what :meth:`preview` gave for exactly these facts; saves computing it again.
        """
        intake = self._intake(requests, feedback)
        self.states = _restored(states, self.states) or self._advanced(intake)
        self.exposure.add(intake.ours)
        self.newest_arrival = max([self.newest_arrival, *(fact.arrived_at for fact in requests)])
        self.settled_on_canary += sum(fact.variant == "canary" for fact in intake.final)
        self._newest, self._pending, self._early = intake.newest, intake.pending, dict(intake.early)
        self._seen.update(intake.drawn)
        self._answered.update(request.request_id for _, request, _ in intake.answered)
        self._forget()

    def standing(self) -> Standing:
        """The verdicts at present."""
        from genai_operators.decisions.sequential import assess

        broken = self.states[REQUESTS].split.broken
        # Feedback cannot see the split; what it finds once the requests have shown it broken is void, too.
        void_from = {FEEDBACK: broken.arrival} if broken else {}
        return combine({name: assess(state, void_from=void_from.get(name)) for name, state in self.states.items()})

    def states_to_json(self) -> dict[str, Any]:
        """The statistical states, exact."""
        return {name: state.to_json() for name, state in self.states.items()}

    # --- order -------------------------------------------------------------------------------------------------

    def _intake(self, requests: Sequence[RequestFact], feedback: Sequence[FeedbackFact]) -> Intake:
        ours = tuple(fact for fact in requests if belongs(self._plan, fact))
        drawn = {fact.request_id: fact for fact in ours if is_drawn(fact)}
        newest = max([self._newest, *(fact.completed_at for fact in requests)])
        watermark = newest - self._plan.settle_s
        waiting = (*self._pending, *drawn.values())
        final = sorted(
            (fact for fact in waiting if fact.arrived_at < watermark),
            key=lambda fact: (fact.arrived_at, fact.request_id),
        )
        answered, early = self._join(drawn, feedback)
        return Intake(
            newest=newest,
            ours=ours,
            final=tuple(final),
            pending=tuple(fact for fact in waiting if fact.arrived_at >= watermark),
            drawn=drawn,
            answered=answered,
            early=early,
        )

    def _join(
        self, drawn: Mapping[str, RequestFact], feedback: Sequence[FeedbackFact]
    ) -> tuple[tuple[tuple[float, RequestFact, int], ...], dict[str, FeedbackFact]]:
        """Feedback with its request, the first on each request only; and feedback whose request is not known yet."""
        early = dict(self._early)
        joined: dict[str, tuple[float, RequestFact, int]] = {}
        for answer in feedback:
            early.setdefault(answer.request_id, answer)
        for name in [name for name in early if name in drawn or name in self._seen]:
            answer, request = early.pop(name), drawn.get(name) or self._seen[name]
            if name not in self._answered:
                joined[name] = (max(answer.at, request.completed_at), request, judge_feedback(answer))
        return tuple(sorted(joined.values(), key=lambda item: (item[0], item[1].request_id))), early

    def _forget(self) -> None:
        horizon = self._newest - FEEDBACK_WINDOW_S
        if self._seen and next(iter(self._seen.values())).completed_at < horizon:
            self._seen = {key: fact for key, fact in self._seen.items() if fact.completed_at >= horizon}
            self._answered &= self._seen.keys()
            self._early = {key: fact for key, fact in self._early.items() if fact.at >= horizon}

    # --- the statistics ----------------------------------------------------------------------------------------

    def _advanced(self, intake: Intake) -> dict[str, State]:
        states = dict(self.states)
        if REQUESTS in states:
            judged = [judge(self._plan.guardrails, fact) for fact in intake.final]
            states[REQUESTS] = _updated(
                states[REQUESTS],
                intake.final,
                arrival=[fact.arrived_at for fact in intake.final],
                bad={name: [row[name] for row in judged] for name in states[REQUESTS].plan.names},
                causes=[cause_of(fact) for fact in intake.final],
            )
        if FEEDBACK in states:
            states[FEEDBACK] = _updated(
                states[FEEDBACK],
                [request for _, request, _ in intake.answered],
                arrival=[at for at, _, _ in intake.answered],
                bad={NEGATIVE_FEEDBACK: [bad for _, _, bad in intake.answered]},
                causes=None,
            )
        return states


def _updated(
    state: State,
    facts: Sequence[RequestFact],
    *,
    arrival: Sequence[float],
    bad: Mapping[str, list[int]],
    causes: list[str | None] | None,
) -> State:
    import numpy as np

    from genai_operators.decisions.sequential import Observations, update

    if not facts:
        return state
    propensity = np.array([fact.propensity for fact in facts], dtype=np.float64)
    # A request that took longer than the plan foresaw comes after younger ones were judged: it counts as of now.
    floor = -math.inf if state.last_arrival is None else state.last_arrival
    observations = Observations(
        arrival=np.maximum.accumulate(np.maximum(np.array(arrival, dtype=np.float64), floor)),
        canary=np.array([fact.variant == "canary" for fact in facts], dtype=np.bool_),
        propensity=propensity,
        bad={name: np.array(column, dtype=np.int8) for name, column in bad.items()},
        cause=causes,
        cause_propensity=None if causes is None else np.maximum(propensity, OUTAGE_PROPENSITY),
    )
    return update(state, observations)


def _restored(states: Mapping[str, Any] | None, known: Mapping[str, State]) -> dict[str, State] | None:
    """Stored states; ``None`` without any, or if another version of the code wrote them: then they are computed."""
    from genai_operators.decisions.sequential import State

    if states is None or set(states) != set(known):
        return None
    try:
        return {name: State.from_json(states[name]) for name in known}
    except DataError:
        return None


def combine(assessments: Mapping[str, Assessment]) -> Standing:
    """One standing from the question about requests and the one about feedback.

    Harm in either is harm (they share ``alpha``); health needs both (intersection-union); the split is judged on
    requests: who sends feedback depends on the answer, so feedback says nothing about the split.
    """
    harms = [assessment.harm for assessment in assessments.values()]
    culprit = next((a.culprit for a in assessments.values() if a.harmful), None)
    harm = next((verdict for verdict in harms if verdict.outcome is Outcome.FAIL), harms[0])
    healths = [assessment.health for assessment in assessments.values()]
    order = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
    worst = min(healths, key=lambda verdict: order.index(verdict.outcome))
    return Standing(
        harm=_merged(harm, harms),
        health=_merged(worst, healths),
        split=assessments[REQUESTS].split,
        evidence={name: one for assessment in assessments.values() for name, one in assessment.evidence.items()},
        culprit=culprit,
    )


def _merged(leading: Verdict, verdicts: Iterable[Verdict]) -> Verdict:
    checks = tuple(check for verdict in verdicts for check in verdict.checks)
    return Verdict(gate=leading.gate, outcome=leading.outcome, checks=checks, summary=leading.summary)
