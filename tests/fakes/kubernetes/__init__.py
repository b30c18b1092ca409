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

Not here: services and DNS (host names of a pod's subdomain become loopback), more than one container of a pod,
network policies, CEL, quotas by scope, priorities.
"""
