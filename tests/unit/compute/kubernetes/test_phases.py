"""What a cluster shows of an attempt, and what that means. A table of statuses as real clusters write them."""

from __future__ import annotations

from typing import Any

import pytest

from genai_operators.compute.contract import GONE, Phase
from genai_operators.compute.kubernetes.phases import Observation, awaited_object, classify
from tests.unit.compute.kubernetes.clusters import (
    NOW,
    at,
    condition,
    event,
    job,
    pod,
    running,
    terminated,
    waiting,
)

FAILED = condition("Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")
UNSCHEDULABLE = condition(
    "PodScheduled", "False", reason="Unschedulable", message="0/5 nodes are available: 5 Insufficient nvidia.com/gpu."
)
SCHEDULED = condition("PodScheduled", since=-90)
PREEMPTED = condition("DisruptionTarget", reason="PreemptionByScheduler", message="preempting to accommodate a higher")
LOST = condition(
    "DisruptionTarget", reason="DeletionByTaintManager", message="Taint manager: deleting due to NoExecute"
)


def look(**seen: Any) -> Any:
    return classify(Observation(**seen), now=NOW)


class TestBeforeItRuns:
    def test_a_job_that_is_not_there_yet_can_be_launched_again(self):
        probe = look(job=None)
        assert (probe.phase, probe.reason) == (Phase.STARTING, "absent")

    def test_an_unschedulable_pod_waits_in_the_scheduler_s_own_words(self):
        probe = look(job=job(), pods=[pod("Pending", UNSCHEDULABLE, node="")])
        assert probe.phase is Phase.QUEUED
        assert "5 Insufficient nvidia.com/gpu" in probe.detail
        assert probe.since == NOW

    def test_a_machine_that_is_being_added_counts_as_starting(self):
        events = [
            event("FailedScheduling", "0/5 nodes are available", seen=-40),
            event("TriggeredScaleUp", "pod triggered scale-up: [{gpu-pool 0->1 (max: 4)}]", seen=-20),
        ]
        probe = look(job=job(), pods=[pod("Pending", UNSCHEDULABLE, node="")], events=events)
        assert (probe.phase, probe.reason) == (Phase.STARTING, "scale-up")
        assert "gpu-pool 0->1" in probe.detail
        assert probe.since == NOW - 20

    def test_a_scale_up_that_failed_is_waiting_again(self):
        events = [event("TriggeredScaleUp", "up", seen=-40), event("NotTriggerScaleUp", "max reached", seen=-2)]
        assert look(job=job(), pods=[pod("Pending", UNSCHEDULABLE, node="")], events=events).phase is Phase.QUEUED

    def test_a_pulling_image_is_told(self):
        events = [event("Scheduled", "assigned", seen=-30), event("Pulling", 'Pulling image "workload"', seen=-20)]
        seen = pod("Pending", SCHEDULED, state=waiting("ContainerCreating"))
        probe = look(job=job(), pods=[seen], events=events)
        assert probe.phase is Phase.STARTING
        assert "Pulling image" in probe.detail
        assert probe.error is None
        assert probe.since == NOW - 90

    @pytest.mark.parametrize(
        ("state", "events", "since", "error"),
        [
            (waiting("ErrImagePull", "not found"), [], -5, None),
            (waiting("ImagePullBackOff", "Back-off"), [], -30, None),
            (waiting("ImagePullBackOff", "Back-off"), [], -90, "ImagePullFailed"),
            (waiting("ErrImagePull"), [event("Failed", "Failed to pull image: no", count=3)], -5, "ImagePullFailed"),
            (waiting("ErrImagePull"), [event("Failed", "Failed to pull image: no", count=2)], -5, None),
            (waiting("ImagePullBackOff"), [event("Failed", "Failed to pull image: reset")], -900, None),
            (waiting("ImagePullBackOff"), [event("Failed", "Failed to pull image: reset"),
                                           event("Failed", "Error: ImagePullBackOff", count=9)], -50, None),
            (waiting("InvalidImageName"), [], -1, "ImagePullFailed"),
            (waiting("CreateContainerConfigError", 'secret "s3" not found'), [], -10, None),
            (waiting("CreateContainerConfigError", 'secret "s3" not found'), [], -90, "ConfigurationError"),
            (waiting("ContainerCreating"), [], -900, None),
        ],
    )  # fmt: skip
    def test_a_typo_is_told_from_a_hiccup(self, state, events, since, error):
        seen = pod("Pending", condition("PodScheduled", since=since), state=state)
        probe = look(job=job(), pods=[seen], events=events)
        assert (probe.phase, probe.error) == (Phase.STARTING, error)

    def test_a_namespace_without_room_is_a_queue(self):
        message = (
            'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=4, used: 8, limited: 8'
        )
        probe = look(job=job(), events=[event("FailedCreate", message)])
        assert (probe.phase, probe.reason) == (Phase.QUEUED, "quota")
        assert "limited: 8" in probe.detail

    def test_a_pod_that_may_not_be_created_is_given_time_for_what_is_missing(self):
        events = [event("FailedCreate", 'serviceaccount "genai-workload" not found')]
        assert look(job=job(), events=events).error is None  # the Job is a minute old
        old = job()
        old["metadata"]["creationTimestamp"] = at(-61)
        assert look(job=old, events=events).error == "ConfigurationError"


QUEUE = {"kueue.x-k8s.io/queue-name": "research"}


class TestInAQueue:
    def test_the_queue_s_own_words_say_why(self):
        message = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h100"
        workload = {"spec": {}, "status": {"conditions": [condition("QuotaReserved", "False", message=message)]}}
        probe = look(job=job(suspend=True, **QUEUE), workload=workload)
        assert probe.phase is Phase.QUEUED
        assert "queue research" in probe.detail
        assert "flavor h100" in probe.detail

    def test_how_many_wait_before_it(self):
        workload = {"spec": {}, "status": {"conditions": [condition("QuotaReserved", "False", message="no quota")]}}
        probe = look(job=job(suspend=True, **QUEUE), workload=workload, ahead=3)
        assert probe.detail == "waits in queue research, 3 before it: no quota"

    def test_one_that_had_begun_waits_again_and_is_not_gone(self):
        probe = look(job=job(condition("Suspended", since=-7), suspend=True, **QUEUE), begun=True)
        assert probe.phase is Phase.PREEMPTED
        assert "others took its place" in probe.detail
        assert probe.since == NOW - 7

    def test_its_pods_still_run_while_they_are_stopped(self):
        assert look(job=job(suspend=True, **QUEUE), pods=[pod(state=running(), deleted=60)]).phase is Phase.RUNNING

    def test_one_that_the_queue_gave_up_will_never_run(self):
        evicted = condition("Evicted", reason="DeactivatedDueToMaximumExecutionTimeExceeded", message="exceeded 3600s")
        workload = {"spec": {"active": False}, "status": {"conditions": [evicted]}}
        assert look(job=job(suspend=True, **QUEUE), workload=workload).error == "WorkloadTimeout"


class TestWhileItRuns:
    def test_it_runs_since_its_container_does(self):
        probe = look(job=job(), pods=[pod(state=running(-30))])
        assert (probe.phase, probe.since) == (Phase.RUNNING, NOW - 30)
        assert "node-a" in probe.detail

    def test_a_pod_that_is_being_deleted_still_runs(self):
        for found in (job(), job(FAILED), job(deleted=True), None):
            probe = look(job=found, pods=[pod(state=running(), deleted=100)], begun=True)
            assert probe.phase is Phase.RUNNING

    def test_one_that_is_being_preempted_says_so_and_still_runs(self):
        probe = look(job=job(), pods=[pod("Running", PREEMPTED, state=running(), deleted=20)])
        assert (probe.phase, probe.reason) == (Phase.RUNNING, "PreemptionByScheduler")

    def test_one_that_should_have_been_gone_long_ago_is_stuck(self):
        probe = look(job=job(), pods=[pod("Running", LOST, state=running(), deleted=-200)])
        assert (probe.phase, probe.reason) == (Phase.RUNNING, "stuck")
        assert "node-a" in probe.detail


class TestPreemption:
    def test_it_is_not_gone_as_its_job_will_replace_the_pod(self):
        ended = pod("Failed", PREEMPTED, state=terminated(75))
        probe = look(job=job(), pods=[ended], begun=True)
        assert (probe.phase, probe.reason) == (Phase.PREEMPTED, "PreemptionByScheduler")
        assert probe.phase not in GONE
        assert probe.since == NOW - 5

    def test_a_pod_that_was_removed_before_anybody_looked_is_replaced_too(self):
        assert look(job=job(), begun=True).phase is Phase.PREEMPTED

    def test_what_a_watch_remembers_tells_why(self):
        probe = look(job=job(), departed=[pod("Failed", PREEMPTED, state=terminated(75))], begun=True)
        assert probe.reason == "PreemptionByScheduler"

    def test_the_replacement_counts_and_not_the_one_before(self):
        pods = [pod("Failed", PREEMPTED, state=terminated(75)), pod(state=running(-2), name="job-next")]
        probe = look(job=job(), pods=pods, begun=True)
        assert (probe.phase, probe.since) == (Phase.RUNNING, NOW - 2)

    @pytest.mark.parametrize("events", [[], [event("TriggeredScaleUp", "pod triggered scale-up")]])
    def test_while_no_machine_is_free_for_the_replacement_it_waits_since_it_lost_the_last(self, events):
        pods = [
            pod("Failed", PREEMPTED, state=terminated(75, finished=-300)),
            pod("Pending", UNSCHEDULABLE, node="", name="job-next"),
        ]
        probe = look(job=job(), pods=pods, events=events, begun=True)
        assert (probe.phase, probe.since) == (Phase.PREEMPTED, NOW - 300)

    def test_without_quota_for_the_replacement_it_waits_as_well(self):
        refused = event("FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus')
        assert look(job=job(), events=[refused], begun=True).phase is Phase.PREEMPTED

    def test_a_replacement_that_has_its_node_is_starting(self):
        next_pod = pod("Pending", SCHEDULED, state=waiting("ContainerCreating"), name="job-next")
        assert look(job=job(), pods=[next_pod], begun=True).phase is Phase.STARTING

    def test_a_job_that_has_not_yet_judged_its_pod_is_not_over(self):
        assert look(job=job(), pods=[pod("Failed", state=terminated(1))], begun=True).phase is Phase.RUNNING


ENDS = [
    (pod("Failed", state=terminated(137, "OOMKilled")), "OutOfMemory"),
    (pod("Failed", state=terminated(137, "Error")), None),
    (pod("Failed", state=terminated(75)), None),
    (pod("Failed", state=terminated(143)), None),
    (pod("Failed", state=terminated(75, "OOMKilled")), None),
    (pod("Failed", state=terminated(78)), "BadWorkload"),
    (pod("Failed", state=terminated(2, message="error: unrecognized arguments")), "BadWorkload"),
    (pod("Failed", state=terminated(76)), "NonFiniteLoss"),
    (pod("Failed", state=terminated(28)), "StorageFull"),
    (pod("Failed", state=terminated(1)), "WorkloadFailed"),
    (pod("Failed", state=terminated(1, message="Traceback\ngenai_operators.exceptions.StoreUnavailable: no answer")),
     "StoreUnavailable"),
    (pod("Failed", state=terminated(1, message="Traceback\nValueError: no")), "WorkloadFailed"),
    (pod("Failed", state=terminated(128, "StartError", "exec: python: not found")), "ConfigurationError"),
    (pod("Failed", reason="Evicted", message="The node was low on resource: memory."), "Preempted"),
    (pod("Failed", reason="Evicted", message='Usage of EmptyDir volume "scratch" exceeds the limit "20Gi".'),
     "StorageFull"),
    (pod("Failed", condition("DisruptionTarget", reason="DeletionByPodGC", message="PodGC: node not found")),
     "NodeLost"),
    (pod("Failed", reason="OutOfnvidia.com/gpu", message="Pod was rejected: Node didn't have enough resource"),
     "Preempted"),
    (pod("Failed", reason="UnexpectedAdmissionError", message="Allocate failed due to rpc error"), "Preempted"),
    (pod("Failed", reason="NodeShutdown", message="Pod was terminated in response to imminent node shutdown."),
     "NodeLost"),
]  # fmt: skip


class TestTheEnd:
    @pytest.mark.parametrize(("ended", "error"), ENDS)
    def test_exit_code_and_reason_and_condition_are_read_together(self, ended, error):
        probe = look(job=job(FAILED), pods=[ended], begun=True)
        assert (probe.phase, probe.error) == (Phase.FAILED, error)
        assert "job-x7k2p" in probe.detail

    def test_success(self):
        probe = look(
            job=job(condition("Complete", since=-3)), pods=[pod("Succeeded", state=terminated(0, "Completed"))]
        )
        assert (probe.phase, probe.since) == (Phase.SUCCEEDED, NOW - 3)

    def test_a_condition_that_is_not_true_is_none(self):
        """They are strings: "False" is true in Python."""
        probe = look(job=job(condition("Failed", "False"), condition("Complete", "False")), begun=True)
        assert probe.phase is Phase.PREEMPTED

    def test_a_job_that_was_deleted_by_hand_can_be_resumed(self):
        for found in (None, job(deleted=True)):
            probe = look(job=found, begun=True)
            assert (probe.phase, probe.reason, probe.error) == (Phase.FAILED, "deleted", None)

    def test_pods_that_outlive_their_job_still_run(self):
        assert look(job=None, pods=[pod(state=running())], begun=True).phase is Phase.RUNNING

    @pytest.mark.parametrize(
        ("seen", "vouched"),
        [
            ({"job": None, "begun": True}, False),
            ({"job": None, "begun": True, "departed": [pod(state=running(), deleted=-1)]}, False),
            ({"job": None, "begun": True, "departed": [pod("Failed", state=terminated(137))]}, True),
            ({"job": None, "begun": True, "given_up": True}, True),
            ({"job": job(FAILED), "begun": True}, False),
            ({"job": job(FAILED), "begun": True, "pods": [pod("Failed", state=terminated(137))]}, True),
            ({"job": job(deleted=True), "begun": True}, False),
            ({"job": job(deleted=True)}, True),
        ],
    )
    def test_whether_anybody_saw_it_end(self, seen, vouched):
        """After ``kubectl delete --force`` its object is gone and its processes need not be."""
        probe = look(**seen)
        assert probe.phase in GONE
        assert probe.vouched is vouched

    def test_one_that_was_given_up_never_begins(self):
        probe = look(job=None, begun=True, given_up=True)
        assert (probe.phase, probe.reason) == (Phase.FAILED, "abandoned")

    def test_its_deadline_is_a_timeout(self):
        failed = condition("Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline")
        assert look(job=job(failed), begun=True).error == "WorkloadTimeout"

    def test_job_sets_end_alike(self):
        assert look(job=job(condition("Completed", reason="AllJobsCompleted"))).phase is Phase.SUCCEEDED


class TestSeveralNodes:
    def test_it_runs_once_all_of_them_do(self):
        pods = [pod(state=running(-9)), pod("Pending", UNSCHEDULABLE, node="", name="job-1")]
        assert look(job=job(), pods=pods, begun=True).phase is Phase.QUEUED
        pods[1] = pod(state=running(-4), name="job-1")
        probe = look(job=job(), pods=pods)
        assert (probe.phase, probe.since) == (Phase.RUNNING, NOW - 4)

    def test_the_first_that_failed_is_to_blame(self):
        pods = [
            pod("Failed", state=terminated(137, finished=-1), name="job-0"),
            pod("Failed", state=terminated(76, finished=-40), name="job-1"),
        ]
        probe = look(job=job(FAILED), pods=pods, begun=True)
        assert probe.error == "NonFiniteLoss"


class TestWhatIsAskedForEvents:
    def test_only_what_waits(self):
        pending = pod("Pending", UNSCHEDULABLE, node="")
        assert awaited_object(Observation(job=job(), pods=[pending])) == pending
        assert awaited_object(Observation(job=job(), pods=[pod(state=running())])) is None
        assert awaited_object(Observation(job=job(FAILED))) is None
        assert awaited_object(Observation(job=job(suspend=True))) is None
        assert awaited_object(Observation(job=job()))["metadata"]["uid"] == "job-uid"
