"""The cluster's manifests: strictly valid, consistent, and giving no right that no code of ours needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from genai_operators.compute.kubernetes.names import MANAGED_BY, MANAGED_BY_LABEL
from genai_operators.compute.kubernetes.permissions import PERMISSIONS, role_manifests, workload_account
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from tests.unit.deployment.chart_values import ChartValues, misspelt
from tests.unit.deployment.strict_models import model_of

FOLDER = Path(__file__).resolve().parents[3] / "docker/kubernetes"
VERSIONS = ("1.34", "1.37")
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "airflow-values.yaml")


def manifests(path: Path) -> list[dict[str, Any]]:
    return [manifest for manifest in yaml.safe_load_all(path.read_text()) if manifest]


ALL = [(path, manifest) for path in FILES for manifest in manifests(path)]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for _, each in ALL if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def check(manifest: dict[str, Any], version: str) -> None:
    model = model_of(manifest)
    if model is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:
        model.model_validate(manifest)


class TestValidity:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize(
        ("path", "manifest"),
        ALL,
        ids=[f"{path.relative_to(FOLDER)}:{each['kind']}:{each.get('metadata', {}).get('name')}" for path, each in ALL],
    )
    def test_no_field_is_unknown_or_wrong(self, path: Path, manifest: dict[str, Any], version: str) -> None:
        check(manifest, version)

    @pytest.mark.parametrize(
        ("kind", "name"), [("NetworkPolicy", "default-deny"), ("ClusterQueue", "genai"), ("ResourceQuota", "genai")]
    )
    def test_and_the_check_would_see_a_misspelt_field(self, kind: str, name: str) -> None:
        broken = {**named(kind, name), "spec": {**named(kind, name)["spec"], "hrad": {}}}
        with pytest.raises((ValidationError, kubernetes_validate.ValidationError)):
            check(broken, VERSIONS[-1])


class TestChartValues:
    """Of Airflow's own chart; whether Airflow knows the options below ``config`` it can say itself."""

    VALUES = yaml.safe_load((FOLDER / "airflow-values.yaml").read_text())

    def test_no_value_is_unknown_or_wrong(self) -> None:
        ChartValues.model_validate(self.VALUES)
        assert yaml.safe_load(self.VALUES["extraEnvFrom"]) == [{"secretRef": {"name": "genai-connections"}}]

    @pytest.mark.parametrize("name", ["allowPodLaunching", "serviceAccount", "claimName", "jwtSecretName"])
    def test_and_the_check_would_see_a_misspelt_one(self, name: str) -> None:
        broken = misspelt(self.VALUES, name, name.lower())
        broken["scheduler"]["extraVolumes"] = [
            misspelt(volume, name, name.lower()) for volume in broken["scheduler"]["extraVolumes"]
        ]
        with pytest.raises(ValidationError, match=name.lower()):
            ChartValues.model_validate(broken)

    def test_airflow_has_the_options(self) -> None:
        from airflow.configuration import conf

        known = conf.configuration_description
        for section, options in self.VALUES["config"].items():
            assert set(options) <= set(known[section]["options"]), section


class TestPermissions:
    def test_the_role_is_what_the_code_needs(self) -> None:
        wanted = [*role_manifests("genai", controller_namespace="airflow"), workload_account("genai")]
        found = [each for each in manifests(FOLDER / "rbac.yaml") if each["kind"] != "ServiceAccount"]
        found.append(named("ServiceAccount", "genai-workload"))
        assert found == wanted

    def test_nothing_is_granted_by_wildcard_and_no_secret_can_be_read(self) -> None:
        for permission in PERMISSIONS:
            assert "*" not in (permission.group, permission.resource, *permission.verbs)
            assert permission.resource not in ("secrets", "pods/exec", "pods/attach", "pods/portforward", "roles")
        assert "create" not in next(each for each in PERMISSIONS if each.resource == "pods").verbs

    def test_the_workloads_account_has_no_rights_and_no_token(self) -> None:
        assert named("ServiceAccount", "genai-workload")["automountServiceAccountToken"] is False
        bound = [subject["name"] for _, each in ALL for subject in each.get("subjects", [])]
        assert set(bound) == {"genai-controller"}


class TestConsistency:
    def test_every_file_is_in_a_kustomization(self) -> None:
        for folder in {path.parent for path in FILES}:
            (kustomization,) = manifests(folder / "kustomization.yaml")
            listed = {(folder / name).resolve() for name in kustomization["resources"]}
            here = {path.resolve() for path in FILES if path.parent == folder and path.name != "kustomization.yaml"}
            assert listed - here <= {FOLDER.resolve()}
            assert here - listed <= {(FOLDER / "kind/cluster.yaml").resolve()}

    def test_namespaces_that_are_used_exist(self) -> None:
        existing = {each["metadata"]["name"] for _, each in ALL if each["kind"] == "Namespace"}
        for path, each in ALL:
            namespace = each.get("metadata", {}).get("namespace")
            assert namespace is None or namespace in existing, path

    def test_the_namespace_of_jobs_takes_restricted_pods_only(self) -> None:
        labels = named("Namespace", "genai")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"

    def test_nothing_is_reachable_but_what_is_listed(self) -> None:
        deny = named("NetworkPolicy", "default-deny")["spec"]
        assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        policies = [each for _, each in ALL if each["kind"] == "NetworkPolicy"]
        for policy in policies:
            assert policy["metadata"]["namespace"] == "genai"
            selected = policy["spec"]["podSelector"].get("matchLabels")
            assert selected in (None, {MANAGED_BY_LABEL: MANAGED_BY})
        outside = named("NetworkPolicy", "object-store")["spec"]["egress"][0]
        assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]
        assert outside["ports"] == [{"protocol": "TCP", "port": 443}]

    def test_the_queue_tries_spot_first_and_names_flavors_that_exist(self) -> None:
        queue = named("ClusterQueue", "genai")["spec"]
        flavors = [flavor["name"] for group in queue["resourceGroups"] for flavor in group["flavors"]]
        assert flavors == ["any", "gpu-spot", "gpu-on-demand"]
        for flavor in flavors:
            assert named("ResourceFlavor", flavor)
        assert queue["flavorFungibility"] == {"whenCanBorrow": "TryNextFlavor", "whenCanPreempt": "TryNextFlavor"}
        assert named("LocalQueue", "research")["spec"]["clusterQueue"] == "genai"

    def test_the_volume_of_the_kind_cluster_is_the_folder_that_it_mounts(self) -> None:
        (cluster,) = manifests(FOLDER / "kind/cluster.yaml")
        (mount,) = cluster["nodes"][0]["extraMounts"]
        volume = named("PersistentVolume", "genai-store")
        claim = named("PersistentVolumeClaim", "genai-store")
        assert volume["spec"]["hostPath"]["path"] == mount["containerPath"]
        assert volume["spec"]["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
        assert claim["spec"]["volumeName"] == "genai-store"

    def test_the_charts_values_use_the_account_that_has_the_role(self) -> None:
        values = yaml.safe_load((FOLDER / "airflow-values.yaml").read_text())
        for component in ("scheduler", "triggerer"):
            assert values[component]["serviceAccount"] == {"create": False, "name": "genai-controller"}
        assert values["allowPodLaunching"] is False
        assert values["airflowVersion"] == "3.3.2"
        assert values["securityContexts"]["pod"]["runAsUser"] == values["uid"] == 50000


class TestPage:
    """The page that tells what to type."""

    PAGE = (FOLDER / "README.md").read_text()

    def test_files_that_it_names_exist(self) -> None:
        named_files = set(re.findall(r"docker/[\w./-]*\w", self.PAGE))
        assert {"docker/kubernetes", "docker/kubernetes/kueue", "docker/kubernetes/kind/cluster.yaml"} <= named_files
        for name in named_files:
            assert (FOLDER.parents[1] / name).exists(), name

    def test_the_connections_settings_exist_and_fit(self) -> None:
        lines = re.findall(r"^AIRFLOW_CONN_GENAI_(\w+)=(.*)$", self.PAGE, re.MULTILINE)
        connections = {name: json.loads(text) for name, text in lines}
        assert {"STORE", "MLFLOW", "KUBERNETES", "SIGNING"} == set(connections)
        extra = {**connections["KUBERNETES"]["extra"], "image": f"registry/genai-workload@sha256:{'0' * 64}"}
        extra.pop("in_cluster")
        assert KubernetesSettings(**extra).namespace == "genai"

    def test_the_kind_clusters_settings_exist_and_fit(self) -> None:
        (text,) = re.findall(r"AIRFLOW_CONN_GENAI_KUBERNETES='(.*?)'\n", self.PAGE, re.DOTALL)
        shell = text.replace("'$PWD'", "").replace("'$(id -u)'", "1000")
        extra = json.loads(shell)["extra"]
        extra.pop("kube_config_path")
        settings = KubernetesSettings(**extra)
        assert settings.require_image() == "genai-workload:cpu"
        claim = named("PersistentVolumeClaim", "genai-store")
        assert list(settings.volume_claims) == [claim["metadata"]["name"]]

    def test_secrets_that_the_chart_names_are_made(self) -> None:
        values = (FOLDER / "airflow-values.yaml").read_text()
        for secret in set(re.findall(r"(?:SecretName|name): (genai-(?!controller)[\w-]+)", values)):
            assert f"create secret generic {secret}" in self.PAGE, secret
        for key in ("connection", "fernet-key", "api-secret-key", "jwt-secret"):
            assert f"--from-literal={key}=" in self.PAGE
