"""What a state says at present: three verdicts and the figures behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from genai_operators.decisions.sequential_harm import RATIOS, WEIGHTS, Alarm, harm_evidence
from genai_operators.decisions.sequential_health import log_absolute, log_health, log_relative
from genai_operators.decisions.sequential_plan import Guardrail
from genai_operators.decisions.sequential_split import split_evidence
from genai_operators.decisions.sequential_state import Counts, State
from genai_operators.decisions.verdict import Check, Outcome, Verdict

LARGEST_SHOWN = 1e12
"""Evidence beyond this is shown as this; the logarithms stay exact."""


@dataclass(frozen=True, kw_only=True)
class GuardrailEvidence:
    """One guardrail at present. Natural logarithms of e-values: 3.0 is a factor of 20.

    :param log_harm: against "the ratio is at most ``harm_ratio``".
    :param log_health: against "neither margin nor ceiling is kept": the mixture of the two below.
    :param log_relative: against "the ratio is at least ``margin``".
    :param log_absolute: against "the canary's rate so far is at least ``ceiling``"; ``None`` without a ceiling,
        ``-inf`` while the minimum soak lasts.
    :param ratio_interval: ratios that are not refuted at level ``alpha``, at any look (a confidence sequence, as wide
        as the grid of the prior is coarse).
    """

    name: str
    counts: Counts
    log_harm: float
    log_health: float
    log_relative: float
    log_absolute: float | None
    ratio_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Three verdicts. What came first takes precedence: harm, or a broken split, which voids all that comes later.

    :param harm: ``FAIL`` once harm is proved, for good; else ``INCONCLUSIVE``: the absence of an alarm proves nothing.
        Harm that is found after the split broke, or at the same request, is not proved.
    :param health: ``PASS`` when every guardrail is proved acceptable now; ``FAIL`` after harm; else ``INCONCLUSIVE``.
    :param split: ``FAIL`` once the observed split is not the asked one, for good; ``PASS`` while nothing speaks
        against it; ``INCONCLUSIVE`` without assignments.
    :param evidence: the figures, by guardrail.
    :param log_harm: the weighted average of the guardrails' evidence of harm, as a natural logarithm.
    :param log_split: evidence against the asked split.
    """

    harm: Verdict
    health: Verdict
    split: Verdict
    evidence: Mapping[str, GuardrailEvidence]
    log_harm: float
    log_split: float
    culprit: str | None

    @property
    def harmful(self) -> bool:
        """Harm is proved: roll back."""
        return self.harm.outcome is Outcome.FAIL

    @property
    def certified(self) -> bool:
        """Every guardrail is proved acceptable, no harm was proved, and the split is intact."""
        return self.health.outcome is Outcome.PASS and not self.harmful and self.split_intact

    @property
    def split_intact(self) -> bool:
        """Nothing speaks against the asked split."""
        return self.split.outcome is not Outcome.FAIL


def assess(state: State, *, void_from: float | None = None) -> Assessment:
    """Judge. Calling it more or less often changes nothing: the error rates hold at every look together.

    Method: see :mod:`~genai_operators.decisions.sequential_harm` (Bonferroni-free weighted average at ``1 / alpha``),
    ``sequential_health`` (intersection-union at ``1 / beta`` each) and ``sequential_split``.

    :param void_from: arrival at which another question about the same traffic found the split broken: harm that this
        one found at that time or later is void.
    """
    plan, alarm = state.plan, state.harm.alarm
    if alarm is not None and void_from is not None and alarm.arrival >= void_from:
        alarm = None
    evidence = {
        guardrail.name: _evidence(state, number, log_harm)
        for number, (guardrail, log_harm) in enumerate(zip(plan.guardrails, harm_evidence(state.harm), strict=True))
    }
    average = _log_sum(
        [math.log(share) + evidence[name].log_harm for share, name in zip(plan.shares, plan.names, strict=True)]
    )
    log_split = split_evidence(state.split)
    return Assessment(
        harm=_harm_verdict(state, alarm, evidence, average, void=void_from is not None),
        health=_health_verdict(state, alarm, evidence),
        split=_split_verdict(state, log_split),
        evidence=evidence,
        log_harm=average,
        log_split=log_split,
        culprit=None if alarm is None else alarm.guardrail,
    )


def _evidence(state: State, number: int, log_harm: float) -> GuardrailEvidence:
    guardrail, counts = state.plan.guardrails[number], state.counts[number]
    relative = log_relative(state.health.products[number], guardrail)
    absolute = None
    if guardrail.ceiling is not None:
        absolute = -math.inf
        if _soaked(state):
            absolute = log_absolute(requests=counts.canary, bad=counts.canary_bad, ceiling=guardrail.ceiling)
    return GuardrailEvidence(
        name=guardrail.name,
        counts=counts,
        log_harm=log_harm,
        log_health=log_health(relative=relative, absolute=absolute),
        log_relative=relative,
        log_absolute=absolute,
        ratio_interval=_ratio_interval(state, number, guardrail),
    )


def _soaked(state: State) -> bool:
    if state.first_arrival is None or state.last_arrival is None:
        return False
    return state.last_arrival - state.first_arrival - state.plan.warm_up_s >= state.plan.minimum_soak_s


def _ratio_interval(state: State, number: int, guardrail: Guardrail) -> tuple[float, float]:
    """Grid ratios whose likelihood is at least ``alpha`` times the mixture's; open ends where the grid ends."""
    logs = np.append(0.0, state.harm.products[number].log())  # the first one is harm_ratio itself
    ratios = np.append(1.0, RATIOS) * guardrail.harm_ratio
    top = float(logs.max())
    mixture = top + math.log(float(WEIGHTS @ np.exp(logs[1:] - top)))
    kept = np.flatnonzero(logs > mixture + math.log(state.plan.alpha))
    if not len(kept):
        return 0.0, float(guardrail.harm_ratio)
    lower = 0.0 if kept[0] == 0 else float(ratios[kept[0] - 1])
    upper = math.inf if kept[-1] == len(ratios) - 1 else float(ratios[kept[-1] + 1])
    return lower, upper


def _harm_verdict(
    state: State, alarm: Alarm | None, evidence: Mapping[str, GuardrailEvidence], average: float, *, void: bool
) -> Verdict:
    plan, broken = state.plan, state.split.broken
    events = [one.counts.canary_events + one.counts.champion_events for one in evidence.values()]
    checks = [
        Check(
            name="harm",
            outcome=Outcome.FAIL if alarm else Outcome.INCONCLUSIVE,
            observed=_shown(average),
            threshold=1.0 / plan.alpha,
            n=sum(events),
            message="evidence of harm: the guardrails' evidence, averaged by their weights",
        )
    ]
    for count, one in zip(events, evidence.values(), strict=True):
        checks.append(
            Check(
                name=f"harm.{one.name}",
                outcome=Outcome.FAIL if alarm and alarm.guardrail == one.name else Outcome.INCONCLUSIVE,
                observed=_shown(one.log_harm),
                n=count,
                severity="info",  # only their average is held against a threshold
                message=_rates(one.counts),
            )
        )
    if alarm:
        summary = (
            f"harm proved at request {alarm.request:,}: {alarm.guardrail} ({_rates(evidence[alarm.guardrail].counts)})"
        )
    elif broken or void:
        since = f"at request {broken.request:,}" if broken else "already"
        summary = f"no harm proved before the split broke, {since}: what is found later is void"
    else:
        summary = f"no harm proved; combined evidence {_shown(average):.3g}, threshold {1 / plan.alpha:.3g}"
    return Verdict(
        gate="harm", outcome=Outcome.FAIL if alarm else Outcome.INCONCLUSIVE, checks=tuple(checks), summary=summary
    )


def _health_verdict(state: State, alarm: Alarm | None, evidence: Mapping[str, GuardrailEvidence]) -> Verdict:
    plan = state.plan
    needed = -math.log(plan.beta)
    checks = []
    for guardrail, one in zip(plan.guardrails, evidence.values(), strict=True):
        limits = f"below {guardrail.margin:g} x champion"
        if guardrail.ceiling is not None:
            limits += f" or below {guardrail.ceiling:.3g}"
        checks.append(
            Check(
                name=f"health.{one.name}",
                outcome=Outcome.PASS if one.log_health >= needed else Outcome.INCONCLUSIVE,
                observed=_shown(one.log_health),
                threshold=1.0 / plan.beta,
                n=one.counts.canary,
                message=f"{limits}: {_rates(one.counts)}",
            )
        )
    lacking = [one.name for one in evidence.values() if one.log_health < needed]
    if alarm:
        outcome, summary = Outcome.FAIL, "harm was proved first"
    elif state.split.broken:
        outcome, summary = Outcome.INCONCLUSIVE, "the split is not the asked one, so that nothing is proved"
    elif lacking:
        outcome, summary = Outcome.INCONCLUSIVE, f"not yet proved acceptable: {', '.join(lacking)}"
    else:
        outcome, summary = Outcome.PASS, "every guardrail is proved acceptable"
    return Verdict(gate="health", outcome=outcome, checks=tuple(checks), summary=summary)


def _split_verdict(state: State, log_split: float) -> Verdict:
    split = state.split
    alpha = state.plan.split_alpha
    if alpha is None:
        return Verdict(gate="split", outcome=Outcome.SKIPPED, summary="these rows say nothing about the canary's split")
    outcome = Outcome.PASS if split.requests else Outcome.INCONCLUSIVE
    asked = f"{split.canary:,} of {split.requests:,} on the canary, {split.expected:,.1f} expected"
    if split.impossible:
        asked += f"; {split.impossible:,} on an arm without weight"
    check = Check(
        name="split",
        outcome=Outcome.FAIL if split.broken else outcome,
        observed=_shown(log_split),
        threshold=1.0 / alpha,
        n=split.requests,
        message=asked,
    )
    summary = asked
    if split.broken:
        summary = (
            f"the split is not the asked one, the analysis is void from request {split.broken.request:,} on: {asked}"
        )
    return Verdict(gate="split", outcome=check.outcome, checks=(check,), summary=summary)


def _rates(counts: Counts) -> str:
    def rate(bad: int, requests: int) -> str:
        return f"{bad:,} of {requests:,}" + (f" ({bad / requests:.2%})" if requests else "")

    canary, champion = rate(counts.canary_bad, counts.canary), rate(counts.champion_bad, counts.champion)
    return f"canary {canary}, champion {champion}"


def _shown(log_value: float) -> float:
    return min(math.exp(min(log_value, 700.0)), LARGEST_SHOWN)


def _log_sum(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs))
