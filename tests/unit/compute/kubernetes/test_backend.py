"""Launch, probe, stop and usage, by the real client over HTTP; the pods are real processes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.contract import GONE, Phase
from genai_operators.compute.kubernetes import waiting
from genai_operators.compute.resources import GIB, Resources
from genai_operators.exceptions import ClusterUnavailable, ConfigurationError, QuotaExceeded
from tests.unit.compute.kubernetes.conftest import backend_for
from tests.unit.compute.kubernetes.workloads import claimed, probe_until, store_in


class TestOneAttemptIsOneJob:
    def test_it_runs_to_its_result(self, cluster, backend, attempt):
        assert backend.probe(attempt).reason == "absent"
        backend.launch(attempt)
        last = probe_until(backend, attempt, "succeeded", "failed")[-1]
        assert last.phase is Phase.SUCCEEDED, cluster.describe()
        assert attempts.find_result(attempt.store, attempt.directory) is not None

    def test_launching_again_adopts_it(self, cluster, backend, attempt):
        before = cluster.created("jobs")
        for _ in range(3):
            backend.launch(attempt)
        assert cluster.created("jobs") == before + 1

    def test_a_create_whose_answer_was_lost_made_one_job(self, cluster, backend, attempt):
        before = cluster.created("jobs")
        cluster.faults.lose_answers(1)
        backend.launch(attempt)
        assert cluster.created("jobs") == before + 1

    def test_a_namesake_is_not_taken_over(self, cluster, backend, tmp_path):
        backend.launch(claimed(tmp_path / "theirs"))
        ours = claimed(tmp_path / "ours", **spec_of(tmp_path / "theirs")["params"])
        with pytest.raises(ConfigurationError, match="not of"):
            backend.launch(ours)
        assert backend.probe(ours).reason == "absent"
        backend.stop(ours)
        assert backend.probe(claimed_again(tmp_path / "theirs")).reason != "absent"


def spec_of(folder):
    """Of the one workload there."""
    attempt = claimed_again(folder)
    return attempt.store.get_json(f"{attempt.directory}/spec.json")


def claimed_again(folder):
    """The attempt that :func:`claimed` made there."""
    store = store_in(folder)
    (name,) = store.list_names("workloads/checkpointing")
    found = attempts.newest_attempt(store, f"workloads/checkpointing/{name}")
    assert found is not None
    return found


def begin(cluster, backend, attempt):
    """Launch it and wait until its supervisor has begun; returns its pod."""
    backend.launch(attempt)
    pod = cluster.wait_for_pod(attempt.name)
    cluster.wait(lambda: attempt.store.exists(attempt.path("started.json")), "its begin")
    return pod


class TestPreemption:
    def test_the_same_job_begins_again_and_the_result_is_the_same(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=60, step_s=0.05)
        created = cluster.created("jobs")
        backend.launch(attempt)
        pod = cluster.wait_for_pod(attempt.name)
        cluster.wait(lambda: attempts.newest_checkpoint_step(attempt.store, attempt.directory) > 0, "a checkpoint")
        cluster.faults.preempt(pod)
        phases = {probe.phase for probe in probe_until(backend, attempt, "succeeded", "failed")}
        assert Phase.SUCCEEDED in phases
        assert Phase.FAILED not in phases
        assert cluster.created("jobs") == created + 1
        assert attempts.find_result(attempt.store, attempt.directory).attempt == 1

    def test_it_is_told_while_the_next_pod_waits(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        pod = begin(cluster, backend, attempt)
        cluster.faults.hold_scheduling()
        cluster.faults.preempt(pod)
        seen = probe_until(backend, attempt, "Unschedulable", "unscheduled")
        cluster.faults.hold_scheduling(False)
        assert all(probe.phase not in GONE for probe in seen)
        assert seen[-1].phase is Phase.PREEMPTED
        backend.stop(attempt)


class TestTheEnd:
    def test_memory_that_ran_out_is_told_from_a_kill(self, cluster, backend, tmp_path):
        for name, error in (("out_of_memory", "OutOfMemory"), ("kill_container", None)):
            attempt = claimed(tmp_path / name, steps=2000, step_s=0.05)
            backend.launch(attempt)
            getattr(cluster.faults, name)(cluster.wait_for_pod(attempt.name))
            last = probe_until(backend, attempt, "succeeded", "failed")[-1]
            assert (last.phase, last.error) == (Phase.FAILED, error)

    def test_an_image_that_does_not_exist_ends_it_for_good(self, cluster, backend, tmp_path, monkeypatch):
        monkeypatch.setattr(waiting, "IMAGE_GRACE_S", 2.0)  # of a minute
        attempt = claimed(tmp_path)
        wrong = replace(backend, image="registry.example/typo@sha256:" + "0" * 64)
        wrong.launch(attempt)
        last = probe_until(wrong, attempt, "failed")[-1]
        assert last.error == "ImagePullFailed"
        ending = attempts.recorded_ending(attempt)
        assert ending is not None
        assert ending.error == "ImagePullFailed"
        probe_until(wrong, attempt, "abandoned")

    def test_a_pod_that_cannot_even_begin_leaves_its_last_words(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path)
        broken = replace(backend, store_in_pod="file:///proc/nosuch")
        broken.launch(attempt)
        last = probe_until(broken, attempt, "succeeded", "failed")[-1]
        assert last.phase is Phase.FAILED
        assert "/proc/nosuch" in last.detail

    def test_a_command_that_the_image_does_not_have_is_a_wrong_installation(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path)
        broken = replace(backend, python="nosuch-python")
        broken.launch(attempt)
        last = probe_until(broken, attempt, "succeeded", "failed")[-1]
        assert (last.phase, last.error) == (Phase.FAILED, "ConfigurationError")

    def test_a_job_deleted_by_hand_can_be_resumed(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        begin(cluster, backend, attempt)
        cluster.delete_job(attempt.name)
        last = probe_until(backend, attempt, "failed")[-1]
        assert (last.reason, last.error) == ("deleted", None)
        assert cluster.pods(attempt.name) == []

    def test_what_was_given_up_never_begins(self, cluster, backend, attempt):
        attempts.request_cancel(attempt, reason="nobody wants it")
        assert backend.probe(attempt).reason == "abandoned"


class TestStop:
    def test_the_pods_go_before_the_job(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        begin(cluster, backend, attempt)
        backend.stop(attempt)
        backend.stop(attempt)
        probe_until(backend, attempt, "failed")
        assert cluster.pods(attempt.name) == []

    def test_it_stays_alive_while_its_pod_is_stuck(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        pod = begin(cluster, backend, attempt)
        cluster.faults.stick(pod)
        backend.stop(attempt)
        cluster.wait(lambda: not cluster.faults.process_of(pod), "its process to end")
        assert backend.probe(attempt).phase is Phase.RUNNING
        cluster.faults.unstick(pod)
        probe_until(backend, attempt, "failed")


class TestQuota:
    def test_a_namespace_that_may_hold_no_further_job_says_so(self, cluster, backend, attempt):
        cluster.faults.set_quota({"count/jobs.batch": "0"})
        try:
            with pytest.raises(QuotaExceeded):
                backend.launch(attempt)
        finally:
            cluster.faults.set_quota(None)

    def test_filled_by_the_very_attempt_is_no_reason_to_refuse_it(self, cluster, backend, attempt):
        backend.launch(attempt)
        cluster.faults.set_quota({"count/jobs.batch": "1"})
        try:
            backend.launch(attempt)
        finally:
            cluster.faults.set_quota(None)

    def test_a_pod_that_finds_no_room_waits_in_a_queue(self, cluster, backend, attempt):
        cluster.faults.set_quota({"pods": "0"})
        try:
            backend.launch(attempt)
            assert "exceeded quota" in probe_until(backend, attempt, "quota")[-1].detail
        finally:
            cluster.faults.set_quota(None)
        probe_until(backend, attempt, "succeeded")

    def test_a_pod_that_fits_nowhere_waits_in_the_scheduler_s_words(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, resources=Resources(gpu="h200", gpu_count=1, gpu_memory_bytes=130 * GIB))
        backend.launch(attempt)
        last = probe_until(backend, attempt, "Unschedulable")[-1]
        assert last.phase is Phase.QUEUED
        assert "nodes are available" in last.detail
        backend.stop(attempt)


class TestFaultsOfTheApi:
    def test_what_may_pass_is_tried_again(self, cluster, backend, attempt):
        for code in (429, 500, 503):
            cluster.faults.fail_requests(code, count=2, retry_after_s=0)
            backend.launch(attempt)
            backend.probe(attempt)

    def test_a_cluster_that_does_not_answer_is_told_as_such(self, cluster, backend, attempt):
        cluster.faults.outage(3.5)
        began = time.monotonic()
        with pytest.raises(ClusterUnavailable):
            backend.launch(attempt)
        cluster.wait(lambda: time.monotonic() - began > 3.6, "the outage to end")
        backend.launch(attempt)

    def test_an_expired_token_is_renewed(self, cluster, backend, attempt):
        backend.launch(attempt)
        cluster.rotate_token(f"token-{time.monotonic_ns()}")
        backend.probe(attempt)

    def test_a_missing_permission_is_named(self, cluster, backend, attempt):
        cluster.faults.deny("create", "jobs")
        with pytest.raises(ConfigurationError, match=r"create jobs\.batch.*make kubernetes-check"):
            backend.launch(attempt)


class TestUsage:
    def test_cost_accrues_from_the_real_machine(self, cluster, tmp_path):
        prices = {"h100": {"on_demand": 4.0, "spot": 2.0}}
        backend = backend_for(cluster, connection="usage", prices=prices)
        resources = Resources(gpu="h100", gpu_count=2, gpu_memory_bytes=60 * GIB, spot=True, cpu=1.0)
        attempt = claimed(tmp_path, resources=resources, steps=2000, step_s=0.05)
        assert backend.usage(attempt) == []
        backend.launch(attempt)
        cluster.wait_for_pod(attempt.name)
        (used,) = backend.usage(attempt)
        assert (used.machine, used.gpu, used.gpu_count, used.spot) == ("p5.48xlarge", "h100", 2, True)
        assert used.price_per_hour == pytest.approx(4.0)
        assert not used.ended
        later = cluster.wait(lambda: [u for u in backend.usage(attempt) if u.seconds > 1.0], "time to pass")
        assert later[0].cost == pytest.approx(4.0 * later[0].seconds / 3600)
        backend.stop(attempt)

    def test_without_the_right_to_read_nodes_the_plan_s_price_holds(self, cluster, tmp_path):
        backend = backend_for(cluster, connection="usage-denied")
        attempt = claimed(tmp_path, resources=Resources(price_per_hour=1.5, cpu=0.1), steps=2000, step_s=0.05)
        backend.launch(attempt)
        cluster.wait_for_pod(attempt.name)
        cluster.faults.deny("get", "nodes")
        (used,) = backend.usage(attempt)
        assert (used.machine, used.price_per_hour) == ("", 1.5)
        backend.stop(attempt)
