"""The fake API server as the real clients see it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from tests.fakes.kubernetes.fixture import FakeCluster, fake_cluster
from tests.fakes.kubernetes.settings import Settings

NAMESPACE = "genai"


def refusal(call: Any, *arguments: Any, **named: Any) -> tuple[int, dict[str, Any]]:
    """Status code and body of a call that must be refused."""
    with pytest.raises(ApiException) as refused:
        call(*arguments, **named)
    return refused.value.status, json.loads(refused.value.body)


class TestObjects:
    def test_a_name_is_taken_once(self, batch, make_job):
        first = batch.create_namespaced_job(NAMESPACE, make_job("twice"))
        code, status = refusal(batch.create_namespaced_job, NAMESPACE, make_job("twice"))
        assert (code, status["reason"]) == (409, "AlreadyExists")
        assert status["message"] == 'jobs.batch "twice" already exists'
        assert batch.read_namespaced_job("twice", NAMESPACE).metadata.uid == first.metadata.uid

    def test_what_is_not_there_is_404(self, batch):
        code, status = refusal(batch.read_namespaced_job, "none", NAMESPACE)
        assert (code, status["reason"], status["details"]["kind"]) == (404, "NotFound", "jobs")

    def test_a_namespace_must_exist(self, batch, make_job):
        code, status = refusal(batch.create_namespaced_job, "nowhere", make_job("lost"))
        assert (code, status["message"]) == (404, 'namespaces "nowhere" not found')

    def test_defaults_are_those_of_the_server(self, batch, make_job):
        job = batch.create_namespaced_job(NAMESPACE, make_job("defaults", suspend=True, podFailurePolicy=None))
        assert (job.spec.parallelism, job.spec.completions, job.spec.completion_mode) == (1, 1, "NonIndexed")
        assert job.spec.pod_replacement_policy == "TerminatingOrFailed"
        assert job.spec.template.metadata.labels["batch.kubernetes.io/job-name"] == "defaults"
        assert job.spec.selector.match_labels["batch.kubernetes.io/controller-uid"] == job.metadata.uid

    def test_a_stale_writer_is_refused(self, batch, make_job):
        made = batch.create_namespaced_job(NAMESPACE, make_job("stale", suspend=True))
        made.spec.backoff_limit = 1
        made.metadata.resource_version = "1"
        code, status = refusal(batch.replace_namespaced_job, "stale", NAMESPACE, made)
        assert (code, status["reason"]) == (409, "Conflict")

    def test_a_template_is_immutable(self, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("fixed"))
        patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
        code, status = refusal(batch.patch_namespaced_job, "fixed", NAMESPACE, patch)
        assert (code, status["reason"]) == (422, "Invalid")
        assert "spec.template: Invalid value: field is immutable" in status["message"]

    def test_a_label_can_be_patched(self, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("patched", suspend=True, labels={"a": "1", "b": "2"}))
        patched = batch.patch_namespaced_job("patched", NAMESPACE, {"metadata": {"labels": {"a": None, "c": "3"}}})
        assert patched.metadata.labels == {"b": "2", "c": "3"}

    def test_a_status_is_written_only_through_its_subresource(self, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("status", suspend=True, managedBy="example.com/somebody"))
        patch = {"status": {"succeeded": 3}, "metadata": {"labels": {"seen": "yes"}}}
        assert batch.patch_namespaced_job("status", NAMESPACE, patch).status.succeeded is None
        patched = batch.patch_namespaced_job_status("status", NAMESPACE, patch)
        assert (patched.status.succeeded, patched.metadata.labels) == (3, {"seen": "yes"})

    def test_selectors(self, batch, make_job):
        for name, labels in (("one", {"k": "x", "n": "1"}), ("two", {"k": "y"}), ("three", {"k": "x"})):
            batch.create_namespaced_job(NAMESPACE, make_job(name, suspend=True, labels=labels))

        def names(**selectors: str) -> set[str]:
            return {job.metadata.name for job in batch.list_namespaced_job(NAMESPACE, **selectors).items}

        assert names(label_selector="k=x") == {"one", "three"}
        assert names(label_selector="k in (x,y),!n") == {"two", "three"}
        assert names(label_selector="k notin (x)") == {"two"}
        assert names(label_selector="k,n!=1") == {"two", "three"}
        assert names(field_selector="metadata.name=two") == {"two"}
        assert refusal(batch.list_namespaced_job, NAMESPACE, field_selector="spec.nodeName=x")[0] == 400

    def test_lists_come_in_pages(self, batch, make_job):
        for number in range(5):
            batch.create_namespaced_job(NAMESPACE, make_job(f"page-{number}", suspend=True))
        first = batch.list_namespaced_job(NAMESPACE, limit=3)
        rest = batch.list_namespaced_job(NAMESPACE, limit=3, _continue=first.metadata._continue)
        assert [len(first.items), len(rest.items), rest.metadata._continue] == [3, 2, None]


class TestValidation:
    def test_unknown_fields_are_refused_when_asked_strictly(self, batch, make_job):
        job = make_job("strict", suspend=True)
        job["spec"]["template"]["spec"]["tolerationz"] = []
        code, status = refusal(batch.create_namespaced_job, NAMESPACE, job, field_validation="Strict")
        assert (code, status["reason"]) == (400, "BadRequest")
        assert 'strict decoding error: unknown field "spec.template.spec.tolerationz"' in status["message"]

    def test_unknown_fields_are_dropped_with_a_warning_otherwise(self, batch, make_job):
        job = make_job("pruned", suspend=True)
        job["spec"]["backofLimit"] = 3
        made, _, headers = batch.create_namespaced_job_with_http_info(NAMESPACE, job)
        assert made.spec.backoff_limit == 0
        assert 'unknown field \\"spec.backofLimit\\"' in headers["Warning"]

    def test_a_wrong_type_is_refused(self, batch, make_job):
        code, status = refusal(batch.create_namespaced_job, NAMESPACE, make_job("typed", backoffLimit="many"))
        assert code == 400
        assert "cannot unmarshal string" in status["message"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"podReplacementPolicy": "TerminatingOrFailed"}, "spec.podReplacementPolicy"),
            ({"pod": {"restartPolicy": "Always"}}, "spec.template.spec.restartPolicy"),
            ({"pod": {"container": {"volumeMounts": [{"name": "no", "mountPath": "/x"}]}}}, "Not found"),
            ({"pod": {"container": {"resources": {"requests": {"nvidia.com/gpu": "1"}}}}}, "non overcommitable"),
            ({"pod": {"container": {"resources": {"limits": {"memory": "1Gigabyte"}}}}}, "quantities must match"),
            ({"labels": {"genai-operators/fingerprint": "f" * 64}}, "must be no more than 63 bytes"),
        ],
    )
    def test_what_the_server_would_not_take(self, batch, make_job, change, message):
        code, status = refusal(batch.create_namespaced_job, NAMESPACE, make_job("invalid", **change))
        assert (code, status["reason"]) == (422, "Invalid")
        assert message in status["message"]

    def test_custom_kinds_are_strict_as_well(self, custom):
        body = {"metadata": {"name": "t"}, "spec": {"runtimeRef": {"name": "torch"}, "podTemplateOverrides": []}}
        named = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs", "namespace": NAMESPACE}
        code, status = refusal(custom.create_namespaced_custom_object, body=body, field_validation="Strict", **named)
        assert code == 400
        assert 'unknown field "spec.podTemplateOverrides"' in status["message"]


class TestDeletion:
    def test_preconditions(self, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("guarded", suspend=True))
        options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
        code, status = refusal(batch.delete_namespaced_job, "guarded", NAMESPACE, body=options)
        assert (code, status["reason"]) == (409, "Conflict")
        assert "UID in precondition: another" in status["message"]

    def test_without_a_policy_a_jobs_pods_stay(self, cluster, batch, core, make_job):
        """The real API's default for Jobs, and the reason why callers name a policy."""
        batch.create_namespaced_job(NAMESPACE, make_job("orphaning"))
        pod = cluster.faults.wait_for_pod("orphaning")
        _, _, headers = batch.delete_namespaced_job_with_http_info("orphaning", NAMESPACE)
        assert "child pods are preserved by default" in headers["Warning"]
        cluster.faults.wait(lambda: not cluster.faults.objects("jobs"), "the job is gone")
        left = core.read_namespaced_pod(pod, NAMESPACE)
        assert (left.status.phase, left.metadata.owner_references) == ("Running", None)

    def test_foreground_waits_for_the_pods(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("foreground"))
        pod = cluster.faults.wait_for_pod("foreground")
        cluster.faults.stick(pod)
        batch.delete_namespaced_job("foreground", NAMESPACE, propagation_policy="Foreground")
        job = batch.read_namespaced_job("foreground", NAMESPACE)
        assert job.metadata.finalizers == ["foregroundDeletion"]
        cluster.faults.unstick(pod)
        cluster.faults.wait(lambda: not cluster.faults.objects("jobs"), "the job is gone")
        assert cluster.faults.pods() == []

    def test_a_pod_gets_its_grace(self, cluster, batch, core, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("grace", backoffLimit=3))
        pod = cluster.faults.wait_for_pod("grace")
        cluster.faults.wait(lambda: "up" in cluster.faults.container_log(uid_of(cluster, pod)), "it is up")
        uid = uid_of(cluster, pod)
        core.delete_namespaced_pod(pod, NAMESPACE)
        cluster.faults.wait_for_pod("grace", other_than=pod)
        assert batch.read_namespaced_job("grace", NAMESPACE).status.failed == 1
        assert "up" in cluster.faults.container_log(uid)


def uid_of(cluster: FakeCluster, pod: str) -> str:
    return next(one["metadata"]["uid"] for one in cluster.faults.pods() if one["metadata"]["name"] == pod)


class TestWatches:
    def test_a_watch_goes_on_where_the_list_ended(self, batch, make_job):
        version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
        batch.create_namespaced_job(NAMESPACE, make_job("seen", suspend=True))
        batch.patch_namespaced_job("seen", NAMESPACE, {"metadata": {"labels": {"x": "y"}}})
        batch.delete_namespaced_job("seen", NAMESPACE, propagation_policy="Background")
        stream = watch.Watch().stream(batch.list_namespaced_job, NAMESPACE, resource_version=version, timeout_seconds=1)
        seen = [(event["type"], event["object"].metadata.name) for event in stream]
        assert seen[0] == ("ADDED", "seen")
        assert seen[-1] == ("DELETED", "seen")
        assert ("MODIFIED", "seen") in seen

    def test_what_leaves_the_selection_looks_deleted(self, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("leaving", suspend=True, labels={"in": "yes"}))
        version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
        batch.patch_namespaced_job("leaving", NAMESPACE, {"metadata": {"labels": {"in": "no"}}})
        stream = watch.Watch().stream(
            batch.list_namespaced_job, NAMESPACE, resource_version=version, label_selector="in=yes", timeout_seconds=1
        )
        assert [event["type"] for event in stream] == ["DELETED"]

    def test_an_old_version_is_answered_with_410(self, cluster, batch, make_job):
        version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
        cluster.faults.expire_watches()
        stream = watch.Watch().stream(batch.list_namespaced_job, NAMESPACE, resource_version=version, timeout_seconds=2)
        with pytest.raises(ApiException) as refused:
            list(stream)
        assert refused.value.status == 410

    def test_bookmarks_come_when_asked_for(self, cluster, batch):
        version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
        url = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs?watch=1&resourceVersion={version}&allowWatchBookmarks=true"
        answer = cluster.api_client().call_api(
            url + "&timeoutSeconds=1", "GET", auth_settings=["BearerToken"], _preload_content=False,
            _return_http_data_only=True,
        )  # fmt: skip
        events = [json.loads(line) for line in answer.data.splitlines()]
        assert events[-1]["type"] == "BOOKMARK"
        assert int(events[-1]["object"]["metadata"]["resourceVersion"]) >= int(version)

    def test_a_stalled_watch_misses_what_happens(self, cluster, batch, make_job):
        version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
        seen: list[str] = []
        ended = threading.Event()

        def follow() -> None:
            stream = watch.Watch().stream(
                batch.list_namespaced_job, NAMESPACE, resource_version=version, timeout_seconds=2
            )
            seen.extend(event["type"] for event in stream)
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        cluster.faults.wait(lambda: cluster.faults.figures()["watches"] > 0, "a watch is open")
        cluster.faults.stall_watches()
        another = client.BatchV1Api(cluster.api_client())
        another.create_namespaced_job(NAMESPACE, make_job("unseen", suspend=True))
        assert ended.wait(10)
        assert seen == []

    def test_a_dropped_watch_breaks_the_stream(self, cluster, batch):
        version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
        ended = threading.Event()

        def follow() -> None:
            try:
                answer = batch.list_namespaced_job(
                    NAMESPACE, watch=True, resource_version=version, timeout_seconds=60, _preload_content=False
                )
                list(answer.stream())
            except Exception:
                ended.set()

        threading.Thread(target=follow, daemon=True).start()
        cluster.faults.wait(lambda: cluster.faults.figures()["watches"] > 0, "a watch is open")
        assert cluster.faults.drop_watches() == 1
        assert ended.wait(5)

    def test_the_asynchronous_client_watches_too(self, cluster, batch, make_job):
        from kubernetes_asyncio import client as async_client
        from kubernetes_asyncio import config as async_config
        from kubernetes_asyncio import watch as async_watch

        async def first_types() -> list[str]:
            configuration = async_client.Configuration()
            await async_config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
            async with async_client.ApiClient(configuration) as api:
                jobs = async_client.BatchV1Api(api)
                stream = async_watch.Watch().stream(jobs.list_namespaced_job, NAMESPACE, timeout_seconds=2)
                return [event["type"] async for event in stream]

        batch.create_namespaced_job(NAMESPACE, make_job("async", suspend=True))
        assert asyncio.run(first_types())[0] == "ADDED"


class TestAccess:
    def test_reviews_and_requests_agree(self, cluster, batch, make_job):
        auth = client.AuthorizationV1Api(cluster.api_client())
        cluster.faults.deny("create", "jobs")

        def may(verb: str) -> bool:
            wanted = {"verb": verb, "group": "batch", "resource": "jobs", "namespace": NAMESPACE}
            review = {"spec": {"resourceAttributes": wanted}}
            return bool(auth.create_self_subject_access_review(review).status.allowed)

        assert [may("create"), may("get")] == [False, True]
        code, status = refusal(batch.create_namespaced_job, NAMESPACE, make_job("denied"))
        assert (code, status["reason"]) == (403, "Forbidden")
        assert status["message"].endswith('cannot create resource "jobs" in API group "batch" in the namespace "genai"')

    def test_an_expired_token_is_401_and_a_fresh_one_works(self, tmp_path):
        with fake_cluster(Settings(folder=""), folder=tmp_path / "cluster") as cluster:
            old = client.BatchV1Api(cluster.api_client())
            cluster.rotate_token()
            assert refusal(old.list_namespaced_job, NAMESPACE)[0] == 401
            assert client.BatchV1Api(cluster.api_client()).list_namespaced_job(NAMESPACE).items == []

    def test_a_token_holds_for_as_long_as_it_was_issued(self, cluster):
        cluster.faults.add_token("short", valid_s=1.0)
        configuration = client.Configuration(
            host=f"http://127.0.0.1:{cluster.port}",
            api_key={"BearerToken": "short"},
            api_key_prefix={"BearerToken": "Bearer"},
        )
        batch = client.BatchV1Api(client.ApiClient(configuration))
        assert batch.list_namespaced_job(NAMESPACE).items == []

        def expired() -> bool:
            try:
                batch.list_namespaced_job(NAMESPACE)
            except ApiException as refused:
                return bool(refused.status == 401)
            return False

        cluster.faults.wait(expired, "401")

    def test_groups_can_be_missing(self, cluster, custom):
        named = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "localqueues", "namespace": NAMESPACE}
        assert custom.list_namespaced_custom_object(**named)["items"] == []
        cluster.faults.set_group("kueue.x-k8s.io", installed=False)
        try:
            with pytest.raises(ApiException) as refused:
                custom.list_namespaced_custom_object(**named)
            assert (refused.value.status, refused.value.body) == (404, "404 page not found\n")
            groups = client.ApisApi(cluster.api_client()).get_api_versions().groups
            assert "kueue.x-k8s.io" not in {group.name for group in groups}
        finally:
            cluster.faults.set_group("kueue.x-k8s.io", installed=True)

    def test_discovery(self, cluster):
        api = cluster.api_client()
        assert client.VersionApi(api).get_code().major == "1"
        names = {one.name for one in client.BatchV1Api(api).get_api_resources().resources}
        assert {"jobs", "jobs/status"} <= names
