"""Fields of the custom kinds, in JSON Schema, as far as objects of ours may use them.

Source: the CRDs of Kueue v1beta2 (0.19), JobSet v1alpha2 (0.13) and Trainer v1alpha1 (2.3).
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(required: tuple[str, ...] = (), /, **properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _core(name: str) -> Schema:
    return {"$ref": f"#/io.k8s.api.core.v1.{name}"}


STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
ANY: Schema = {}
STRINGS: Schema = _list(STRING)
MAP: Schema = {"type": "object", "additionalProperties": STRING}
META: Schema = {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
JOB_TEMPLATE: Schema = {"$ref": "#/io.k8s.api.batch.v1.JobTemplateSpec"}
SELECTOR: Schema = {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"}


def _top(spec: Schema, required: tuple[str, ...] = ("spec",)) -> Schema:
    return _object(required, apiVersion=STRING, kind=STRING, metadata=META, spec=spec, status=ANY)


_JOB_SET_RULE = _object(
    ("name", "action"), name=STRING, action=STRING, onJobFailureReasons=STRINGS, targetReplicatedJobs=STRINGS,
    onJobFailureMessagePatterns=STRINGS,
)  # fmt: skip
_DEPENDS_ON = _object(("name", "status"), name=STRING, status=STRING)
JOB_SET_SPEC = _object(
    (),
    replicatedJobs=_list(
        _object(
            ("name", "template"), name=STRING, groupName=STRING, replicas=INTEGER, template=JOB_TEMPLATE,
            dependsOn=_list(_DEPENDS_ON),
        )
    ),
    network=_object((), enableDNSHostnames=BOOLEAN, subdomain=STRING, publishNotReadyAddresses=BOOLEAN),
    successPolicy=_object(("operator",), operator=STRING, targetReplicatedJobs=STRINGS),
    failurePolicy=_object((), maxRestarts=INTEGER, restartStrategy=STRING, rules=_list(_JOB_SET_RULE)),
    startupPolicy=_object(("startupPolicyOrder",), startupPolicyOrder=STRING),
    suspend=BOOLEAN,
    coordinator=_object(("replicatedJob",), replicatedJob=STRING, jobIndex=INTEGER, podIndex=INTEGER),
    managedBy=STRING,
    ttlSecondsAfterFinished=INTEGER,
)  # fmt: skip

_CONTAINER_PATCH = _object(("name",), name=STRING, env=_list(_core("EnvVar")), volumeMounts=_list(_core("VolumeMount")),
                           securityContext=_core("SecurityContext"))  # fmt: skip
_POD_SPEC_PATCH = _object(
    (), serviceAccountName=STRING, nodeSelector=MAP, affinity=_core("Affinity"),
    tolerations=_list(_core("Toleration")), volumes=_list(_core("Volume")),
    initContainers=_list(_CONTAINER_PATCH), containers=_list(_CONTAINER_PATCH),
    imagePullSecrets=_list(_core("LocalObjectReference")), securityContext=_core("PodSecurityContext"),
    schedulingGates=_list(_core("PodSchedulingGate")), terminationGracePeriodSeconds=INTEGER,
)  # fmt: skip
_POD_TEMPLATE_PATCH = _object((), metadata=META, spec=_POD_SPEC_PATCH)
_JOB_TEMPLATE_PATCH = _object((), metadata=META, spec=_object((), template=_POD_TEMPLATE_PATCH))
_JOB_SET_PATCH = _object(
    (), metadata=META,
    spec=_object((), replicatedJobs=_list(_object(("name",), name=STRING, template=_JOB_TEMPLATE_PATCH))),
)  # fmt: skip
_TRAINER = _object(
    (), image=STRING, command=STRINGS, args=STRINGS, env=_list(_core("EnvVar")), numNodes=INTEGER,
    numProcPerNode=INTEGER, resourcesPerNode=_core("ResourceRequirements"),
)  # fmt: skip
TRAIN_JOB_SPEC = _object(
    ("runtimeRef",),
    runtimeRef=_object(("name",), name=STRING, apiGroup=STRING, kind=STRING),
    initializer=ANY,
    trainer=_TRAINER,
    labels=MAP,
    annotations=MAP,
    runtimePatches=_list(
        _object(
            ("manager",), manager=STRING, time=STRING,
            trainingRuntimeSpec=_object((), template=_JOB_SET_PATCH),
        )
    ),
    suspend=BOOLEAN,
    activeDeadlineSeconds=INTEGER,
    managedBy=STRING,
)  # fmt: skip

_QUOTA = _object(("name", "nominalQuota"), name=STRING, nominalQuota=ANY, borrowingLimit=ANY, lendingLimit=ANY)
_FLAVOR_QUOTAS = _object(("name", "resources"), name=STRING, resources=_list(_QUOTA))
_FLAVOR_CHECK = _object(("name",), name=STRING, onFlavors=STRINGS)
CLUSTER_QUEUE_SPEC = _object(
    (),
    resourceGroups=_list(
        _object(("coveredResources", "flavors"), coveredResources=STRINGS, flavors=_list(_FLAVOR_QUOTAS))
    ),
    cohortName=STRING,
    queueingStrategy=STRING,
    namespaceSelector=SELECTOR,
    flavorFungibility=_object((), whenCanBorrow=STRING, whenCanPreempt=STRING, preference=STRING),
    preemption=_object((), reclaimWithinCohort=STRING, withinClusterQueue=STRING,
                       borrowWithinCohort=_object((), policy=STRING, maxPriorityThreshold=INTEGER)),
    admissionChecksStrategy=_object((), admissionChecks=_list(_FLAVOR_CHECK)),
    stopPolicy=STRING,
    fairSharing=_object((), weight=ANY),
    admissionScope=_object((), admissionMode=STRING),
)  # fmt: skip

CUSTOM: dict[str, Schema] = {
    "jobsets": _top(JOB_SET_SPEC),
    "trainjobs": _top(TRAIN_JOB_SPEC),
    "clusterqueues": _top(CLUSTER_QUEUE_SPEC),
    "localqueues": _top(_object((), clusterQueue=STRING, stopPolicy=STRING, fairSharing=ANY)),
    "resourceflavors": _top(
        _object((), nodeLabels=MAP, nodeTaints=_list(_core("Taint")), tolerations=_list(_core("Toleration")),
                topologyName=STRING),
        (),
    ),
    "workloadpriorityclasses": _object(
        ("value",), apiVersion=STRING, kind=STRING, metadata=META, value=INTEGER, description=STRING
    ),
}  # fmt: skip
