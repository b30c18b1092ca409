"""From what a cluster shows of an attempt to its phase: pure, so that every case can be written down and tested.

The rule that all rests on: a phase in :data:`~genai_operators.compute.contract.GONE` only when no pod of the attempt
can still run. A pod that is being deleted still runs; a Job that will replace its pod is not gone either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genai_operators.compute.contract import GONE, Phase, Probe
from genai_operators.compute.kubernetes import jobs, pods, waiting
from genai_operators.compute.kubernetes.jobs import JobView

Json = Mapping[str, Any]

#: A pod may take this much longer than its grace to be gone; then its node is suspected.
STUCK_AFTER_S = 60.0
#: Reasons of a probe that programs look at.
ABSENT, ABANDONED, DELETED, STUCK = "absent", "abandoned", "deleted", "stuck"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at an attempt. Everything is JSON as the API gives it.

    :param job: the attempt's Job, JobSet or TrainJob. :param pods: all of its pods that the cluster has.
    :param departed: pods that were removed, as they were last seen, where somebody watched.
    :param events: of the pod that waits, or of the Job without pods. :param workload: of Kueue.
    :param ahead: how many wait before it in the cluster's queue.
    :param begun: a supervisor of it has begun. :param given_up: the right to begin was taken, nothing ever will.
    """

    job: Json | None
    pods: Sequence[Json] = ()
    departed: Sequence[Json] = ()
    events: Sequence[Json] = ()
    workload: Json | None = None
    ahead: int | None = None
    begun: bool = False
    given_up: bool = False

    @property
    def alive(self) -> list[Json]:
        """Pods that run or still may."""
        return [pod for pod in self.pods if not pods.is_terminal(pod)]

    @property
    def running(self) -> bool:
        """Whether a pod of it runs."""
        return any((pod.get("status") or {}).get("phase") == "Running" for pod in self.pods)


def classify(seen: Observation, *, now: float) -> Probe:
    """The phase, why, and since when. :param now: seconds since the epoch.

    A probe with an ``error`` whose phase is not in ``GONE`` is hopeless: it waits for what will not come by itself.
    """
    probe = _classify(seen, now)
    if probe.phase in GONE:
        return replace(probe, vouched=_saw_the_end(seen))
    waits_for_machine = probe.phase is Phase.QUEUED or probe.reason == waiting.SCALE_UP
    return _taken_away(probe, seen) if seen.begun and waits_for_machine else probe


def _classify(seen: Observation, now: float) -> Probe:
    if seen.job is None:
        return _without_job(seen)
    view = jobs.view(seen.job)
    if seen.alive:
        return _with_pods(view, seen, now)
    if view.complete:
        return Probe(Phase.SUCCEEDED, reason=view.reason, detail=view.message, since=view.since)
    if view.failed:
        return _failed(view, seen)
    if view.being_deleted:
        return Probe(Phase.FAILED, reason=DELETED, detail=f"its {_kind(seen.job)} was deleted", since=view.since)
    if view.suspended:
        return waiting.in_queue(seen.job, view, seen.workload, begun=seen.begun, ahead=seen.ahead)
    return _between_pods(view, seen, now)


def awaited_object(seen: Observation) -> Json | None:
    """The object whose events tell what it waits for: the pod that is pending, else the Job that has none."""
    pending = [pod for pod in seen.alive if (pod.get("status") or {}).get("phase") != "Running"]
    if pending:
        return pending[0]
    if seen.job is None or seen.alive or jobs.view(seen.job).finished or jobs.view(seen.job).suspended:
        return None
    return seen.job


def _without_job(seen: Observation) -> Probe:
    if seen.alive:
        told = ", ".join(map(pods.name, seen.alive))
        return Probe(Phase.RUNNING, reason="orphaned", detail=f"its Job is gone, but not yet its pods: {told}")
    if seen.given_up:
        return Probe(Phase.FAILED, reason=ABANDONED, detail="it was given up before it began")
    if seen.begun:
        return Probe(Phase.FAILED, reason=DELETED, detail="its Job was deleted")
    return Probe(Phase.STARTING, reason=ABSENT, detail="its Job is not there yet")


def _with_pods(view: JobView, seen: Observation, now: float) -> Probe:
    leaving = [pod for pod in seen.alive if pods.is_terminating(pod)]
    if leaving:
        return _leaving(leaving[0], now)
    if view.finished or view.suspended:
        return Probe(
            Phase.RUNNING, reason="ending", detail=f"its pods are being stopped: {view.message or view.reason}"
        )
    pending = [pod for pod in seen.alive if (pod.get("status") or {}).get("phase") != "Running"]
    if pending:
        return waiting.for_start(pending[0], seen.events, now=now)
    began = [at for pod in seen.alive if (at := pods.started_at(pod)) is not None]
    told = ", ".join(f"pod {pods.name(pod)} on node {pods.node(pod)}" for pod in seen.alive)
    return Probe(Phase.RUNNING, detail=told, since=max(began, default=None))


def _leaving(pod: Json, now: float) -> Probe:
    """Still running, but not for long."""
    due = pods.seconds(pod["metadata"]["deletionTimestamp"]) or now
    why = pods.end_of(pod)
    told = why.detail if why.disrupted else f"pod {pods.name(pod)} is being stopped"
    if now - due > STUCK_AFTER_S:
        told += f"; it should have been gone {now - due:.0f} s ago: does its node {pods.node(pod)} still answer?"
        return Probe(Phase.RUNNING, reason=STUCK, detail=told, since=due)
    return Probe(Phase.RUNNING, reason=why.reason if why.disrupted else "terminating", detail=told)


def _failed(view: JobView, seen: Observation) -> Probe:
    if view.reason == "DeadlineExceeded":
        return Probe(
            Phase.FAILED, view.reason, f"it ran longer than max_execution_s: {view.message}", "WorkloadTimeout"
        )
    ended = sorted((*seen.pods, *seen.departed), key=lambda pod: pods.ended_at(pod) or 0.0)
    if not ended:
        return Probe(Phase.FAILED, reason=view.reason, detail=view.message, since=view.since)
    ends = [pods.end_of(pod) for pod in ended]
    blamed = [end for end in ends if end.error is not None and not end.disrupted]
    end = blamed[0] if blamed else ends[-1]  # of several nodes the first that failed takes the others with it
    return Probe(Phase.FAILED, reason=end.reason, detail=end.detail, error=end.error, since=view.since)


def _between_pods(view: JobView, seen: Observation, now: float) -> Probe:
    """The Job goes on without a pod: the next is on its way, or cannot be made."""
    blocked = waiting.for_pod(seen.events, created=view.created, now=now)
    if blocked is not None:
        return blocked
    last = _newest([*seen.pods, *seen.departed])
    if last is None and seen.begun:
        return Probe(Phase.PREEMPTED, reason="gone", detail="its pod was removed; the Job starts another", since=now)
    if last is None:
        return Probe(Phase.STARTING, reason="no-pod", detail="the Job has no pod yet", since=view.created)
    end = pods.end_of(last)
    if end.disrupted:
        detail = f"{end.detail}; the Job starts another"
        return Probe(Phase.PREEMPTED, reason=end.reason, detail=detail, since=pods.ended_at(last))
    return Probe(Phase.RUNNING, reason="ending", detail=end.detail)


def _saw_the_end(seen: Observation) -> bool:
    """Of all pods of what has begun. One that was removed by force, or before anybody looked, may still run."""
    known = [*seen.pods, *seen.departed]
    never_ran = seen.given_up or not seen.begun
    return all(map(pods.is_terminal, known)) if known else never_ran


def _taken_away(probe: Probe, seen: Observation) -> Probe:
    """It had begun and waits for a machine once more: that has a limit of its own, from when it lost the last one."""
    if seen.running:
        return probe  # of several nodes another waits
    last = _newest([*(pod for pod in seen.pods if pods.is_terminal(pod)), *seen.departed])
    ended_at = None if last is None else pods.ended_at(last)
    return replace(probe, phase=Phase.PREEMPTED, since=probe.since if ended_at is None else ended_at)


def _newest(found: Sequence[Json]) -> Json | None:
    return max(found, key=lambda pod: pods.ended_at(pod) or 0.0, default=None)


def _kind(found: Json) -> str:
    return str(found.get("kind") or "Job")
