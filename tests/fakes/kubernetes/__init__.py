"""A Kubernetes API for tests: one small server over HTTP that real clients talk to, with controllers behind it.

Start it from a pytest fixture::

    @pytest.fixture()
    def cluster(tmp_path):
        with cluster_from_environment(Settings(folder=""), folder=tmp_path / "cluster") as cluster:
            yield cluster

    def test_preemption(cluster):
        batch = kubernetes.client.BatchV1Api(cluster.api_client())      # or KUBECONFIG=cluster.kubeconfig
        batch.create_namespaced_job(cluster.namespace, job)             # image: cluster.image
        pod = cluster.faults.wait_for_pod("job-name", "Running")
        cluster.faults.preempt(pod)                                     # skips on a real cluster
        cluster.faults.wait_for_job("job-name", "Complete")
        assert cluster.faults.created("jobs") == 1

(``cluster_from_environment`` and ``fake_cluster`` are in ``fixture``; ``Settings``, ``Image`` and ``gpu_node`` in
``settings``.) With ``KUBECONFIG`` and ``GENAI_TEST_KUBERNETES_NAMESPACE`` set the same fixture hands out that cluster
(``cluster.real``; ``GENAI_TEST_KUBERNETES_IMAGE`` names an image with the project); faults that need the fake skip.

A pod's first container is a local process group; ``settings.Image`` says which ``python`` an image name stands for.
Volumes are folders, and variables and arguments that begin with a mount path are rewritten to them. Nothing outlives
the server, and the server does not outlive its test. ``python -m tests.fakes.kubernetes SETTINGS`` starts one by hand.

What can be done to it (``client.ControlClient``):

- pods: ``preempt``, ``evict``, ``out_of_memory``, ``kill_container``, ``stick`` / ``unstick``, ``delete``;
- nodes: ``lose_node`` (with its processes, or leaving zombies) / ``heal_node``, ``remove_node`` (spot), ``add_node``,
  ``scale_up``, ``delay_scheduling``, ``hold_scheduling``;
- images and quota: ``refuse_image`` / ``allow_image``, ``add_image``, ``set_quota``;
- the API server: ``outage``, ``reset_connections``, ``slow``, ``fail_requests`` (429, 5xx), ``lose_answers``, ``deny``,
  ``expire_token`` / ``FakeCluster.rotate_token``, ``set_group``;
- watches: ``drop_watches``, ``expire_watches`` (410), ``stall_watches``;
- Kueue: ``hold_queue``, ``evict_workload``.

What can be seen: ``created("jobs")``, ``requests("list", "pods")``, ``figures()``, ``objects(plural)`` even while the
API is away, ``container_log(uid)`` even of a pod that is gone, ``root_writes()``. ``clear()`` between two tests.

For benchmarks: ``Settings(simulate_s=5.0)`` or the pod annotations ``fake.kubernetes/run-seconds`` and
``fake.kubernetes/exit-code`` make pods that are no processes; 250 such Jobs cost about 3 s of one core.

Other than the real thing, on purpose: a replacement pod comes after ``job_backoff_s`` (0.05 s, really 10 s, doubling),
a lost node's pods after tenths of a second (really 340 s), the pod collector looks at once (really every 20 s).

Not here: services and DNS (host names of a pod's subdomain become loopback), more than one container of a pod,
network policies, CEL, quotas by scope, priorities.
"""
