"""Where the objects of a namespace are found in the API."""

from __future__ import annotations

from dataclasses import dataclass

from genai_operators.compute.resources import Resources

NODES = "/api/v1/nodes"


@dataclass(frozen=True)
class Paths:
    """Collections of a namespace. :param multi_node: what runs several nodes: ``jobset`` or ``trainjob``."""

    namespace: str
    multi_node: str = "jobset"

    def collection(self, resources: Resources) -> str:
        """Where the object of an attempt with these resources lies."""
        if resources.nodes == 1:
            return self.jobs
        return self.jobsets if self.multi_node == "jobset" else self.train_jobs

    @property
    def jobs(self) -> str:
        """``batch/v1`` Jobs."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def jobsets(self) -> str:
        """JobSets."""
        return f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{self.namespace}/jobsets"

    @property
    def train_jobs(self) -> str:
        """TrainJobs of Kubeflow Trainer."""
        return f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{self.namespace}/trainjobs"

    @property
    def pods(self) -> str:
        """Pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def events(self) -> str:
        """Events, of the core's kind."""
        return f"/api/v1/namespaces/{self.namespace}/events"

    @property
    def workloads(self) -> str:
        """Kueue's own picture of a Job."""
        return f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{self.namespace}/workloads"

    def pending(self, queue: str) -> str:
        """Who waits in a Kueue LocalQueue, in order (its visibility API)."""
        return (
            f"/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/{self.namespace}/localqueues/{queue}/pendingworkloads"
        )

    @property
    def claim_templates(self) -> str:
        """Templates of claims for devices."""
        return f"/apis/resource.k8s.io/v1/namespaces/{self.namespace}/resourceclaimtemplates"
