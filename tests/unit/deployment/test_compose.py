"""The compose file: valid by the specification, consistent in itself, and closed to the outside."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import retrieve_configuration_description
from compose_spec import PyCompose
from cryptography.fernet import Fernet

from genai_operators.settings_file import override, read_settings
from tests.unit.deployment.compose_file import Unset, read_compose, read_env
from tests.unit.deployment.programs import DOCKER, load

ROOT = Path(__file__).resolve().parents[3]
HARDENING = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
#: What each service may add to no capability at all.
CAPABILITIES = {"s3": ["DAC_OVERRIDE"]}
#: Runs once and ends, so it has no health.
ONCE = "initialise"
#: Names in Airflow's containers that Airflow does not know, because they are ours or a library's.
OTHER_VARIABLES = {
    "AIRFLOW_API_URL", "AIRFLOW_ADMIN_PASSWORD", "GENAI_STORE_URI", "MLFLOW_ARTIFACTS_URI", "AWS_ENDPOINT_URL",
    "AWS_REGION", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
}  # fmt: skip


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """What ``new_env.py`` makes of the example."""
    return read_env(load("new_env.py").filled((DOCKER / ".env.example").read_text()))


@pytest.fixture(scope="module")
def compose(variables: dict[str, str]) -> dict[str, Any]:
    return read_compose(DOCKER / "compose.yaml", variables)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


class TestSpecification:
    def test_the_file_is_valid(self, compose: dict[str, Any]) -> None:
        assert set(PyCompose.from_yaml(yaml.safe_dump(compose)).service_names()) == set(compose["services"])

    @pytest.mark.parametrize(
        ("where", "wrong"),
        [
            (("cap_dorp",), ["ALL"]),
            (("depends_on", "initialise", "condition"), "service_helathy"),
            (("healthcheck", "interval"), "soon"),
            (("ports",), ["127.0.0.1:8080:8080:8080"]),
        ],
    )
    def test_and_the_check_would_see_a_mistake(self, variables: dict[str, str], where: Any, wrong: Any) -> None:
        broken = read_compose(DOCKER / "compose.yaml", variables)
        place = yaml.safe_load(yaml.safe_dump(broken["services"]["api-server"]))
        broken["services"]["api-server"] = place
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = wrong
        with pytest.raises(ValueError, match="services"):
            PyCompose.from_yaml(yaml.safe_dump(broken))


class TestReferences:
    def test_services_that_are_waited_for_exist_and_can_become_so(self, services: dict[str, dict[str, Any]]) -> None:
        for name, service in services.items():
            for other, how in service.get("depends_on", {}).items():
                assert other in services, f"{name} waits for {other}"
                if how["condition"] == "service_healthy":
                    assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
                if how["condition"] == "service_completed_successfully":
                    assert services[other]["restart"] == "no"

    def test_nothing_waits_for_itself(self, services: dict[str, dict[str, Any]]) -> None:
        waiting = {name: set(service.get("depends_on", {})) for name, service in services.items()}
        started: set[str] = set()
        while ready := {name for name, others in waiting.items() if others <= started} - started:
            started |= ready
        assert started == set(services)

    def test_volumes_and_networks_are_declared_and_used(
        self, compose: dict[str, Any], services: dict[str, dict[str, Any]]
    ) -> None:
        mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
        named = {mount for mount in mounts if not mount.startswith((".", "/"))}
        assert named == set(compose["volumes"])
        used = {network for service in services.values() for network in service.get("networks", [])}
        assert used == set(compose["networks"])

    def test_files_that_are_mounted_exist_and_stay_as_they_are(self, services: dict[str, dict[str, Any]]) -> None:
        mounts = [mount for service in services.values() for mount in service.get("volumes", []) if mount[0] == "."]
        assert mounts
        for mount in mounts:
            source, _, mode = mount.split(":")
            assert (DOCKER / source).exists(), mount
            assert mode == "ro", mount

    def test_every_service_reaches_those_that_it_names(self, services: dict[str, dict[str, Any]]) -> None:
        def networks(name: str) -> set[str]:
            service = services[name]
            shared = service.get("network_mode", "").removeprefix("service:")
            return networks(shared) if shared else set(service["networks"])

        for name, service in services.items():
            text = yaml.safe_dump([service.get("environment"), service.get("command")])
            for other in re.findall(r"(?:://|@)([a-z][a-z0-9-]*)[:/]", text):
                if other in services:
                    assert networks(name) & networks(other), f"{name} cannot reach {other}"

    def test_programs_that_run_are_in_the_image(self, services: dict[str, dict[str, Any]]) -> None:
        text = yaml.safe_dump(services)
        programs = set(re.findall(r"/opt/host/(\w+\.py)", text))
        assert programs == {"gateway.py", "healthy.py", "initialise.py"}
        for program in programs:
            assert (DOCKER / "airflow" / program).is_file()

    def test_health_is_asked_of_a_component_that_the_program_knows(self, services: dict[str, dict[str, Any]]) -> None:
        healthy = load("airflow/healthy.py")
        checks = [service["healthcheck"]["test"] for service in services.values() if "healthcheck" in service]
        asked = {check[-1] for check in checks if "/opt/host/healthy.py" in check}
        assert asked == {*healthy.ANSWERS, *healthy.HEARTBEATS}

    def test_airflow_knows_its_settings(self, services: dict[str, dict[str, Any]]) -> None:
        known = retrieve_configuration_description(include_providers=True)
        for name in ("scheduler", "triggerer", "api-server", "dag-processor", "initialise"):
            for variable in services[name]["environment"]:
                if variable in OTHER_VARIABLES:
                    continue
                prefix, section, option = variable.lower().split("__")
                assert prefix == "airflow"
                assert option in known[section]["options"], variable

    def test_the_connections_that_differ_exist(self) -> None:
        assignments = [f"{key}={value}" for key, value in load("airflow/initialise.py").CONNECTIONS.items()]
        override(read_settings(ROOT / "airflow_settings.yaml"), assignments)


class TestSafety:
    def test_ports_are_published_on_loopback_only(self, services: dict[str, dict[str, Any]]) -> None:
        ports = [port for service in services.values() for port in service.get("ports", [])]
        assert len(ports) == len(set(ports)) == 4
        for port in ports:
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
        assert all(service.get("network_mode") != "host" for service in services.values())

    def test_every_service_is_hardened_and_limited(self, services: dict[str, dict[str, Any]]) -> None:
        for name, service in services.items():
            assert {key: service.get(key) for key in HARDENING} == HARDENING, name
            assert service.get("cap_add", []) == CAPABILITIES.get(name, []), name
            assert not service.get("privileged"), name
            assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
            assert name == ONCE or "healthcheck" in service, name

    def test_every_image_is_pinned(self, services: dict[str, dict[str, Any]]) -> None:
        for name, service in services.items():
            _, _, tag = service["image"].partition("@")[0].rpartition(":")
            assert tag, name
            assert tag not in ("latest", "main", "stable"), name
            assert service.get("pull_policy") == "never" or re.search(r"\d+\.\d+", tag), name

    def test_no_secret_stands_in_the_file(self, services: dict[str, dict[str, Any]]) -> None:
        text = (DOCKER / "compose.yaml").read_text()
        for name in read_env((DOCKER / ".env.example").read_text()):
            if not name.endswith("_IMAGE"):
                assert f"${{{name}:?" in text, f"{name} is not required"
        with pytest.raises(Unset, match="new_env"):
            read_compose(DOCKER / "compose.yaml", {})

    def test_only_who_needs_a_secret_gets_it(
        self, services: dict[str, dict[str, Any]], variables: dict[str, str]
    ) -> None:
        def having(secret: str) -> set[str]:
            return {name for name, service in services.items() if variables[secret] in yaml.safe_dump(service)}

        airflow = {"initialise", "api-server", "dag-processor", "scheduler", "triggerer"}
        assert having("AIRFLOW_ADMIN_PASSWORD") == {"initialise"}
        assert having("AIRFLOW_FERNET_KEY") == having("AIRFLOW_JWT_SECRET") == airflow
        assert having("POSTGRES_PASSWORD") == airflow | {"postgres", "mlflow"}
        assert having("S3_SECRET_KEY") == airflow | {"s3", "mlflow", "gateway"}

    def test_the_signing_key_is_where_releases_are_made(self, services: dict[str, dict[str, Any]]) -> None:
        having = {
            name for name, service in services.items() if "keys:/var/lib/genai/keys" in service.get("volumes", [])
        }
        assert having == {"scheduler", "triggerer"}

    def test_the_database_and_the_objects_are_on_an_internal_network(
        self, compose: dict[str, Any], services: dict[str, dict[str, Any]]
    ) -> None:
        assert compose["networks"]["data"]["internal"] is True
        assert services["postgres"]["networks"] == services["s3"]["networks"] == ["data"]


class TestOneHost:
    """``local`` compute and serving look at processes, sockets and loopback ports."""

    @pytest.mark.parametrize("name", ["scheduler", "triggerer"])
    def test_tasks_share_processes_network_and_files_with_the_gateway(
        self, services: dict[str, dict[str, Any]], name: str
    ) -> None:
        service = services[name]
        assert service["network_mode"] == service["pid"] == "service:gateway"
        assert set(services["gateway"]["volumes"]) <= set(service["volumes"])
        assert service["image"] == services["gateway"]["image"]

    def test_airflow_skips_the_log_server_that_would_listen_everywhere(
        self, services: dict[str, dict[str, Any]]
    ) -> None:
        for name in ("scheduler", "triggerer"):
            assert "--skip-serve-logs" in services[name]["command"]


class TestNewEnvironment:
    def test_secrets_are_random_valid_and_private(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / ".env.example").write_text((DOCKER / ".env.example").read_text())
        module = load("new_env.py")
        assert module.main(tmp_path) == 0
        path = tmp_path / ".env"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        first = read_env(path.read_text())
        Fernet(first["AIRFLOW_FERNET_KEY"])
        assert len(set(first.values())) == len(first)
        assert all(first.values())
        assert all(secret not in capsys.readouterr().out for secret in first.values())
        assert module.main(tmp_path) == 0
        assert read_env(path.read_text()) == first

    def test_git_never_sees_it(self) -> None:
        assert ".env" in (ROOT / ".gitignore").read_text().split()
