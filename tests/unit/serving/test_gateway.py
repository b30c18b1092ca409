"""What Envoy is told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.serving import gateway
from genai_operators.serving.contract import Deployment
from genai_operators.serving.state import ModelState, Server


def server(version: int, *, model: str = "demo") -> Server:
    deployment = Deployment(model=model, version=version, digest="d", model_dir="/models", runtime="fake")
    return Server(deployment=deployment, port=20_000 + version, command=("serve",))


RELEASE = ModelState(model="demo", champion=server(1), canary=server(2), percent=5.0, route_version=4)


def inside(value: Any, key: str) -> Iterator[Any]:
    """Every value under a key, however deep."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            yield from inside(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from inside(item, key)


def facts(route: dict[str, Any]) -> dict[str, Any]:
    return dict(route["metadata"]["filter_metadata"]["genai"])


class TestRoutes:
    def test_are_one_configuration_for_all_models(self) -> None:
        states = [RELEASE, ModelState(model="other", champion=server(7, model="other"))]
        found = gateway.routes(states)
        assert len(found["resources"]) == 1
        assert set(inside(found, "cluster")) == {"demo-v1-fake", "demo-v2-fake", "other-v7-fake"}

    def test_share_is_exact_to_a_millionth(self) -> None:
        (fraction,) = inside(gateway.model_routes(dataclasses.replace(RELEASE, percent=0.0001)), "default_value")
        assert fraction == {"numerator": 1, "denominator": "MILLION"}

    def test_each_carries_what_the_log_must_know(self) -> None:
        by_header_canary, by_header_champion, share, rest = gateway.model_routes(RELEASE)
        assert [facts(route)["variant"] for route in (by_header_canary, by_header_champion, share, rest)] == [
            "canary",
            "champion",
            "canary",
            "champion",
        ]
        assert [facts(route)["assigned"] for route in (by_header_canary, by_header_champion, share, rest)] == [
            False,
            False,
            True,
            True,
        ]
        for route in (share, rest):
            assert (facts(route)["percent"], facts(route)["route_version"]) == (5.0, 4)

    def test_canary_without_a_share_is_reached_by_header_only(self) -> None:
        found = gateway.model_routes(dataclasses.replace(RELEASE, percent=0.0))
        assert [facts(route)["variant"] for route in found if facts(route)["assigned"]] == ["champion"]

    def test_canary_is_never_retried(self) -> None:
        found = gateway.model_routes(dataclasses.replace(RELEASE, champion_retries=3))
        assert {facts(route)["variant"] for route in found if "retry_policy" in route["route"]} == {"champion"}
        assert not list(inside(gateway.model_routes(RELEASE), "retry_policy"))

    def test_a_version_never_comes_back(self) -> None:
        there = dataclasses.replace(RELEASE, percent=25.0, route_version=5)
        back = dataclasses.replace(RELEASE, route_version=6)
        versions = [gateway.routes([state])["version_info"] for state in (RELEASE, there, back)]
        assert len(set(versions)) == 3

    def test_retired_model_changes_the_version_too(self) -> None:
        empty = [ModelState(model="demo", route_version=number) for number in (1, 2)]
        assert gateway.routes(empty[:1])["version_info"] != gateway.routes(empty[1:])["version_info"]


class TestClusters:
    def test_draining_server_keeps_its_cluster(self) -> None:
        state = dataclasses.replace(RELEASE, draining=(server(9),))
        names = [cluster["name"] for cluster in gateway.clusters([state])["resources"]]
        assert names == ["demo-v1-fake", "demo-v2-fake", "demo-v9-fake"]


class TestLoopback:
    @pytest.mark.parametrize("what", ["bootstrap", "clusters"])
    def test_every_address_is_this_machine(self, what: str, tmp_path: Path) -> None:
        found = {
            "bootstrap": gateway.bootstrap(tmp_path, gateway_port=1, admin_port=2),
            "clusters": gateway.clusters([RELEASE]),
        }[what]
        addresses = {item["address"] for item in inside(found, "socket_address")}
        assert addresses == {"127.0.0.1"}


class TestBootstrap:
    def test_files_are_watched_by_folder(self, tmp_path: Path) -> None:
        found = gateway.bootstrap(tmp_path, gateway_port=1, admin_port=2)
        for source in inside(found, "path_config_source"):
            assert source["watched_directory"]["path"] == str(Path(source["path"]).parent)

    def test_lua_filter_is_packaged_with_the_code(self, tmp_path: Path) -> None:
        assert "envoy_on_response" in json.dumps(gateway.bootstrap(tmp_path, gateway_port=1, admin_port=2))
