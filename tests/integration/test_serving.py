"""The local serving target on real parts: Envoy, supervisord, ingest. Model servers are fakes, one test aside."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from genai_operators.exceptions import GatewayUnavailable, ServingFailed
from genai_operators.serving import batches, gateway
from genai_operators.serving.contract import Deployment, FeedbackFact, RequestFact
from genai_operators.serving.identity import hashed, salt_of
from genai_operators.serving.local import LocalServing
from genai_operators.store import Store
from tests.fakes.serving_platform import FAKE_SERVER, ServingPlatform, until


@pytest.fixture(scope="module")
def platform() -> Iterator[ServingPlatform]:
    platform = ServingPlatform()
    try:
        platform.start()
        yield platform
    finally:
        platform.close()


_names = iter(f"model{k}" for k in range(1000))


@pytest.fixture
def model() -> str:
    """Each test has a model of its own on the shared gateway."""
    return next(_names)


@pytest.fixture
def serving(platform: ServingPlatform, model: str) -> LocalServing:
    return platform.serving(model, output="json")


def request_fact(serving: LocalServing, platform: ServingPlatform, response: httpx.Response) -> RequestFact:
    """The published fact of a response that the client got."""
    wanted = hashed(response.headers["x-request-id"], salt=salt_of(platform.settings.directory))

    def found() -> list[RequestFact]:
        return [fact for fact in serving.observations(0).requests if fact.request_id == wanted]

    return until(found, what=f"request {wanted} is published")[0]


def all_facts(serving: LocalServing, count: int) -> tuple[RequestFact, ...]:
    def enough() -> tuple[RequestFact, ...] | None:
        facts = serving.observations(0).requests
        return facts if len(facts) >= count else None

    facts = until(enough, what=f"{count} requests are published")
    assert len(facts) == count
    return facts


def pid_answering(platform: ServingPlatform, deployment: Deployment) -> int:
    return int(httpx.get(f"http://127.0.0.1:{platform.port_of(deployment)}/health").json()["pid"])


class TestGateway:
    def test_answers_health_models_and_errors_itself(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        assert platform.client.get("/health").json() == {"status": "ok"}
        assert model in [item["id"] for item in platform.client.get("/v1/models").json()["data"]]
        assert platform.ask(model="nobody").status_code == 404
        assert platform.client.get("/secret").status_code == 404
        for body in (
            b"",
            b"[]",
            b'{"model"',
            b'{"messages": []}',
            b'{"model": "a\\nb"}',
            b'{"model": "a", "mod\\u0065l": "b"}',
            b'{"model": "' + b"x" * 200 + b'"}',
        ):
            answer = platform.client.post("/v1/chat/completions", content=body)
            assert answer.status_code == 400, body
            assert answer.json()["error"]["type"] == "invalid_request_error"

    def test_replaces_ids_and_headers_that_a_client_must_not_set(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        headers = {"x-request-id": "mine", "x-genai-model": "nobody"}
        first, second = (platform.ask(model=model, headers=headers) for _ in range(2))
        assert first.status_code == 200
        assert len({"mine", first.headers["x-request-id"], second.headers["x-request-id"]}) == 3

    def test_model_named_inside_a_message_is_not_taken_for_the_model(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        tricky = '"model": "nobody", {[\\" }'
        body = {"messages": [{"model": "nobody", "role": "user", "content": tricky}], "tools": [[]], "model": model}
        assert platform.client.post("/v1/chat/completions", json=body).status_code == 200

    def test_large_request_is_refused_and_a_medium_one_passes(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        assert platform.ask("x" * (gateway.MAX_REQUEST_BYTES // 2), model=model).status_code == 200
        assert platform.ask("x" * (gateway.MAX_REQUEST_BYTES * 2), model=model).status_code == 413

    def test_listens_on_loopback_only(self, platform: ServingPlatform) -> None:
        import psutil

        process = psutil.Process(platform.pid_of("envoy"))
        listening = {item.laddr for item in process.net_connections() if item.status == psutil.CONN_LISTEN}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert {address.port for address in listening} == {platform.gateway_port, platform.admin_port}

    def test_a_second_one_on_the_machine_runs_beside_it(self) -> None:
        second = ServingPlatform(with_ingest=False)
        try:
            second.start()
            assert second.gateway_answers()
        finally:
            second.close()


class TestSplit:
    def test_weights_hold_and_each_line_says_which_was_in_force(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        platform.bring_up(serving, 2, "canary", model=model)
        versions = {serving.set_weight(percent, release="r").route_version: percent for percent in (5.0, 50.0)}
        assert len(versions) == 2
        for _ in range(200):
            assert platform.ask(model=model).status_code == 200
        ack = serving.set_weight(0, release="r")
        for _ in range(50):
            platform.ask(model=model)
        facts = all_facts(serving, 250)
        at_half = [fact for fact in facts if versions.get(fact.route_version) == 50.0]
        after = [fact for fact in facts if fact.route_version == ack.route_version]
        # 200 fair tosses are outside 55..145 less than once in a billion runs.
        assert len(at_half) == 200
        assert {fact.propensity for fact in at_half} == {0.5}
        assert 55 < sum(fact.variant == "canary" for fact in at_half) < 145
        assert len(after) == 50
        assert {(fact.variant, fact.propensity) for fact in after} == {("champion", 0.0)}

    def test_no_request_fails_while_weights_move_under_load(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        platform.bring_up(serving, 2, "canary", model=model)
        acknowledged: dict[int, float] = {}
        moving = threading.Event()

        def ask(_: int) -> int:
            return platform.ask(model=model, stream=True).status_code

        def move() -> None:
            for percent in (5, 100, 0, 50, 25):
                ack = serving.set_weight(percent, release="r")
                acknowledged[ack.route_version] = percent / 100
            moving.set()

        mover = threading.Thread(target=move)
        with ThreadPoolExecutor(4) as pool:
            mover.start()
            statuses = list(pool.map(ask, range(300)))
        mover.join()
        assert moving.is_set()
        assert set(statuses) == {200}
        for fact in all_facts(serving, 300):
            assert fact.propensity == acknowledged.get(fact.route_version, 0.0)

    def test_asked_for_variant_is_served_and_marked(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        canary = platform.bring_up(serving, 2, "canary", model=model)
        response = platform.ask(model=model, headers={"x-genai-variant": "canary"})
        fact = request_fact(serving, platform, response)
        assert (fact.variant, fact.deployment, fact.assigned) == ("canary", canary.id, False)
        assert request_fact(serving, platform, platform.ask(model=model)).assigned

    def test_repeated_weight_changes_nothing(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        platform.bring_up(serving, 2, "canary", model=model)
        first, second = (serving.set_weight(25, release="r") for _ in range(2))
        assert first.route_version == second.route_version

    def test_several_processes_at_once_end_in_one_of_their_weights(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        platform.bring_up(serving, 2, "canary", model=model)
        others = [platform.serving(model, output="json") for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            acks = list(
                pool.map(lambda item: item[1].set_weight(item[0] * 10, release="r"), enumerate(others, start=1))
            )
        assert len({ack.route_version for ack in acks}) == 4
        last = max(acks, key=lambda ack: ack.route_version)
        assert (serving.status().percent, serving.status().route_version) == (last.percent, last.route_version)

    @pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
    def test_share_outside_the_range_is_refused(self, serving: LocalServing, percent: float) -> None:
        with pytest.raises(ServingFailed, match="between 0 and 100"):
            serving.set_weight(percent, release="r")

    def test_share_for_no_canary_is_refused(self, platform: ServingPlatform, serving: LocalServing, model: str) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        with pytest.raises(ServingFailed, match="no canary to send 5 % to"):
            serving.set_weight(5, release="r")


class TestMeasurement:
    def test_first_token_is_not_the_first_byte(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, answer="one two three four", first_token_ms=150, gap_ms=40)
        fact = request_fact(serving, platform, platform.ask(model=model, stream=True))
        assert fact.first_token_ms is not None
        assert fact.max_gap_ms is not None
        # The fake sends its headers and a first, empty chunk at once and sleeps before each token.
        assert 150 <= fact.first_token_ms <= fact.duration_ms - 3 * 40 + 20
        assert 40 <= fact.max_gap_ms <= fact.duration_ms - 150
        assert fact.tokens == 4

    def test_unstreamed_answer_has_no_first_token(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        fact = request_fact(serving, platform, platform.ask(model=model))
        assert (fact.first_token_ms, fact.max_gap_ms, fact.tokens, fact.valid_output) == (None, None, 2, True)

    def test_unicode_survives_and_lua_makes_no_error(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, answer='"quoted" 日本語 😀 {echo}')
        prompt = 'Größe "x"\n\t{]\\ \u2028 😀 \x00'
        response = platform.ask(prompt, model=model, stream=True)
        request_fact(serving, platform, response)
        (text,) = [r for r in self._text(platform.store, model) if r["kind"] == "request"]
        assert text["messages"] == [{"role": "user", "content": prompt}]
        assert text["answer"] == f'"quoted" 日本語 😀 {prompt}'
        assert httpx.get(f"{platform.settings.admin_url}/stats?filter=lua.errors").text.strip().endswith(": 0")

    def test_captured_bodies_are_limited(self, platform: ServingPlatform, model: str) -> None:
        serving = platform.serving(model, capture_bytes=300)
        platform.bring_up(serving, 1, "champion", model=model)
        response = platform.ask("😀" * 200, model=model)
        assert response.status_code == 200
        assert request_fact(serving, platform, response).valid_output is True
        (text,) = [r for r in self._text(platform.store, model) if r["kind"] == "request"]
        assert (text["messages"], text["truncated"]) == ([], True)
        assert text["answer"] == '{"intent": "refund"}'

    def test_nothing_is_captured_when_the_limit_is_0(self, platform: ServingPlatform, model: str) -> None:
        serving = platform.serving(model, capture_bytes=0)
        platform.bring_up(serving, 1, "champion", model=model)
        fact = request_fact(serving, platform, platform.ask("private", model=model, stream=True))
        assert fact.first_token_ms is not None
        assert fact.valid_output is None
        assert "private" not in json.dumps(self._text(platform.store, model))

    def _text(self, store: Store, model: str) -> list[dict[str, Any]]:
        numbers = range(batches.next_number(store, model))
        return [item for n in numbers for item in batches.read_batch(store, model, "text", n) or []]


class TestFailures:
    def test_server_errors_are_seen_as_they_are(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, fail_next=1)
        response = platform.ask(model=model)
        fact = request_fact(serving, platform, response)
        assert response.status_code == fact.status == 500
        assert (fact.attempts, fact.valid_output) == (1, None)

    def test_retry_that_hides_a_failure_stays_visible(self, platform: ServingPlatform, model: str) -> None:
        serving = platform.serving(model, champion_retries=1)
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, fail_next=1)
        response = platform.ask(model=model)
        fact = request_fact(serving, platform, response)
        assert response.status_code == fact.status == 200
        assert fact.attempts == 2

    def test_time_limit(self, platform: ServingPlatform, model: str) -> None:
        serving = platform.serving(model, timeout_s=0.2)
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, first_token_ms=2000)
        response = platform.ask(model=model)
        fact = request_fact(serving, platform, response)
        assert response.status_code == fact.status == 504
        assert fact.timed_out

    def test_error_within_a_stream_is_a_failure(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, answer="one two three", break_after=1, error_event=True)
        response = platform.ask(model=model, stream=True)
        assert response.status_code == 200
        assert request_fact(serving, platform, response).status == 502

    def test_client_that_leaves_is_not_the_servers_fault(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        platform.faults(deployment, answer="one two three", gap_ms=500)
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with platform.client.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_bytes())
        assert request_fact(serving, platform, response).status == 499

    def test_dead_server_is_started_again_and_its_broken_stream_counts(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        before = pid_answering(platform, deployment)
        platform.faults(deployment, answer="one two three", break_after=1)
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with (
            pytest.raises(httpx.RemoteProtocolError),
            platform.client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            response.read()
        assert request_fact(serving, platform, response).status == 502
        until(lambda: serving.ready("champion"), what="the server is back")
        assert pid_answering(platform, deployment) != before
        assert platform.ask(model=model).status_code == 200


class TestFeedback:
    def test_is_answered_by_the_gateway_and_joined(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        response = platform.ask("which?", model=model, stream=True)
        request_id = response.headers["x-request-id"]
        correction = {"request_id": request_id, "rating": "wrong", "correction": '{"intent": "Größe"}'}
        assert platform.client.post("/v1/feedback", json=correction).status_code == 202

        def found() -> tuple[FeedbackFact, ...]:
            return serving.observations(0).feedback

        (fact,) = until(found, what="the feedback is published")
        asked = request_fact(serving, platform, response)
        assert (fact.request_id, fact.rating, fact.corrected) == (asked.request_id, "wrong", True)
        numbers = range(batches.next_number(platform.store, model))
        records = [item for n in numbers for item in batches.read_batch(platform.store, model, "text", n) or []]
        (judged,) = [item for item in records if item["kind"] == "feedback"]
        assert judged["messages"] == [{"role": "user", "content": "which?"}]
        assert (judged["answer"], judged["correction"]) == ('{"intent": "refund"}', '{"intent": "Größe"}')

    @pytest.mark.parametrize(
        "body", ["", "[]", "{", '{"request_id": "x"}', '{"rating": "right"}', '{"request_id": "x", "rating": "fine"}']
    )
    def test_that_makes_no_sense_is_refused(self, platform: ServingPlatform, body: str) -> None:
        answer = platform.client.post("/v1/feedback", content=body)
        assert answer.status_code == 400
        assert "rating (right or wrong)" in answer.json()["error"]["message"]


class TestSlots:
    def test_promotion_swaps_without_a_restart_and_drains_the_old(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        old = platform.bring_up(serving, 1, "champion", model=model)
        new = platform.bring_up(serving, 2, "canary", model=model)
        serving.set_weight(50, release="r")
        pid = pid_answering(platform, new)
        old_port = platform.port_of(old)
        platform.faults(old, answer="one two three four", gap_ms=400)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(platform.ask, model=model, stream=True, headers={"x-genai-variant": "champion"})
            until(lambda: self._open(platform, old), what="the slow request is under way")
            serving.promote()
            assert slow.result().text.count("delta") == 6
        status = serving.status()
        assert (status.champion, status.canary, status.percent) == (new, None, 0.0)
        assert pid_answering(platform, new) == pid
        assert platform.ask(model=model).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{old_port}/health")
        serving.promote()
        assert serving.status() == status

    def test_rollback_returns_everything_and_removes_every_trace(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        old = platform.bring_up(serving, 1, "champion", model=model)
        new = platform.bring_up(serving, 2, "canary", model=model)
        serving.set_weight(50, release="r")
        serving.rollback()
        assert (serving.status().champion, serving.status().canary, serving.status().percent) == (old, None, 0.0)
        left = [path.name for path in platform.settings.directory.rglob(f"*{new.id}*") if path.suffix != ".log"]
        assert left == []
        serving.rollback()
        assert serving.status().champion == old

    def test_version_that_was_rolled_back_can_come_again(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        for _ in range(2):
            canary = platform.bring_up(serving, 2, "canary", model=model)
            assert serving.set_weight(100, release="r").percent == 100
            assert request_fact(serving, platform, platform.ask(model=model)).deployment == canary.id
            serving.rollback()

    def test_deploying_again_is_harmless(self, platform: ServingPlatform, serving: LocalServing, model: str) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        pid, status = pid_answering(platform, deployment), serving.status()
        serving.deploy(deployment, slot="champion")
        assert (pid_answering(platform, deployment), serving.status()) == (pid, status)

    def test_serving_champion_is_not_replaced_in_place(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        with pytest.raises(ServingFailed, match=r"deploy .* to the canary slot and promote"):
            serving.deploy(platform.deployment(2, model=model), slot="champion")

    def test_canary_with_traffic_is_not_replaced(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        platform.bring_up(serving, 2, "canary", model=model)
        serving.set_weight(5, release="r")
        with pytest.raises(ServingFailed, match=r"with 5 % of the traffic"):
            serving.deploy(platform.deployment(3, model=model), slot="canary")

    def test_wrong_deployments_are_refused_before_anything_changes(
        self, platform: ServingPlatform, serving: LocalServing, model: str, tmp_path: Path
    ) -> None:
        good = platform.deployment(1, model=model)
        for bad, message in (
            (dataclasses.replace(good, runtime="nope"), "has no runtime 'nope'; its model file knows standard, fake"),
            (dataclasses.replace(good, model_dir=str(tmp_path / "gone")), "there is no model directory .*gone"),
            (dataclasses.replace(good, model="other"), "is a version of other, not of"),
            (dataclasses.replace(good, runtime="a b"), "cannot name a server"),
        ):
            with pytest.raises(ServingFailed, match=message):
                serving.deploy(bad, slot="champion")
        assert serving.status().champion is None
        with pytest.raises(ServingFailed, match=r"slot of .* is empty"):
            serving.ready("champion")

    def _open(self, platform: ServingPlatform, deployment: Deployment) -> bool:
        name = f"cluster.{deployment.id}.upstream_rq_active"
        found = httpx.get(f"{platform.settings.admin_url}/stats", params={"filter": f"{name}$"})
        return found.text.strip() == f"{name}: 1"


class TestServers:
    def test_that_cannot_start_say_why(self, platform: ServingPlatform, model: str) -> None:
        command = (
            "{python}",
            str(FAKE_SERVER),
            "--name",
            "{name}",
            "--port",
            "{port}",
            "--die-at-start",
            "no weights!",
        )
        serving = platform.serving(model, runtimes={"broken": command})
        serving.deploy(platform.deployment(1, model=model, runtime="broken"), slot="champion")
        with pytest.raises(ServingFailed, match=r"(?s)ended again and again while it started.*no weights!"):
            until(lambda: serving.ready("champion"), what="the server is given up")

    def test_that_died_are_not_served_again_from_files_that_somebody_changed(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        config = Path(deployment.model_dir) / "config.json"
        config.write_text("something else")
        os.kill(pid_answering(platform, deployment), signal.SIGKILL)
        with pytest.raises(ServingFailed, match=r"(?s)ManifestMismatch: .*config\.json does not match its manifest"):
            until(lambda: serving.ready("champion") and False, what="the server is given up")

    def test_that_refuse_a_plain_chat_are_not_waited_for(self, platform: ServingPlatform, model: str) -> None:
        command = ("{python}", str(FAKE_SERVER), "--name", "another-name", "--port", "{port}")
        serving = platform.serving(model, runtimes={"misnamed": command})
        serving.deploy(platform.deployment(1, model=model, runtime="misnamed"), slot="champion")
        with pytest.raises(ServingFailed, match=r"refuses a plain chat request: 400 .*another-name only"):
            until(lambda: serving.ready("champion"), what="the server refuses")

    def test_that_found_their_port_taken_get_another(
        self, platform: ServingPlatform, serving: LocalServing, model: str
    ) -> None:
        deployment = platform.bring_up(serving, 1, "champion", model=model)
        taken = platform.port_of(deployment)
        # Between the death of the server and its restart, another process takes the port.
        thief = subprocess.Popen(
            [sys.executable, "-c", THIEF, str(taken), str(pid_answering(platform, deployment))], stdin=subprocess.PIPE
        )
        try:
            until(lambda: serving.ready("champion") and platform.port_of(deployment) != taken, what="another port")
            assert platform.ask(model=model).status_code == 200
        finally:
            assert thief.stdin is not None
            thief.stdin.close()
            thief.wait(timeout=30)


THIEF = """
import os, signal, socket, sys
port, victim = int(sys.argv[1]), int(sys.argv[2])
thief = socket.socket()
thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
os.kill(victim, signal.SIGKILL)
while True:
    try:
        thief.bind(("127.0.0.1", port))
        break
    except OSError:
        pass
thief.listen()
sys.stdin.read()
"""


class TestOutages:
    """Each on a platform of its own, which it may break."""

    @pytest.fixture
    def broken(self) -> Iterator[ServingPlatform]:
        platform = ServingPlatform()
        try:
            platform.start()
            yield platform
        finally:
            platform.close()

    def test_gateway_down_moves_no_traffic_and_says_so(self, broken: ServingPlatform) -> None:
        serving = broken.serving()
        broken.bring_up(serving, 1, "champion")
        broken.bring_up(serving, 2, "canary")
        serving.set_weight(5, release="r")
        before = serving.status()
        broken.stop()
        with pytest.raises(GatewayUnavailable, match=r"the gateway does not answer at http://127\.0\.0\.1:"):
            serving.set_weight(50, release="r")
        with pytest.raises(GatewayUnavailable):
            serving.promote()
        assert serving.status() == before

    def test_platform_that_starts_again_serves_what_it_served_even_if_a_port_was_taken(
        self, broken: ServingPlatform
    ) -> None:
        serving = broken.serving()
        broken.bring_up(serving, 1, "champion")
        canary = broken.bring_up(serving, 2, "canary")
        serving.set_weight(100, release="r")
        status = serving.status()
        broken.stop()
        with socket.socket() as thief:
            thief.bind(("127.0.0.1", broken.port_of(canary)))
            thief.listen()
            broken.start()
        until(lambda: serving.ready("canary"), what="the server is back")
        assert serving.status() == status
        assert request_fact(serving, broken, broken.ask()).deployment == canary.id

    def test_killed_gateway_comes_back_with_its_routes(self, broken: ServingPlatform) -> None:
        serving = broken.serving()
        broken.bring_up(serving, 1, "champion")
        pid = broken.pid_of("envoy")
        os.kill(pid, signal.SIGKILL)
        until(lambda: broken.pid_of("envoy") not in (0, pid) and broken.gateway_answers(), what="a new gateway")
        assert broken.ask().status_code == 200

    def test_killed_ingest_loses_and_doubles_nothing(self, broken: ServingPlatform) -> None:
        serving = broken.serving()
        broken.bring_up(serving, 1, "champion")
        for k in range(60):
            assert broken.ask().status_code == 200
            if k % 20 == 10:
                pid = broken.pid_of("ingest")
                os.kill(pid, signal.SIGKILL)
                until(lambda old=pid: broken.pid_of("ingest") not in (0, old), what="a new ingest")
        assert len({fact.request_id for fact in all_facts(serving, 60)}) == 60

    def test_refused_configuration_is_taken_back(self, broken: ServingPlatform) -> None:
        from genai_operators.serving import admin, publish
        from genai_operators.serving.state import ModelState, StateDirectory

        serving = broken.serving()
        broken.bring_up(serving, 1, "champion")
        states = StateDirectory(broken.settings.directory)
        good = states.read("demo")
        assert isinstance(good, ModelState)
        # Envoy refuses a timeout that is no number of seconds.
        bad = dataclasses.replace(good, timeout_s=float("nan"), route_version=good.route_version + 1)
        limit, admin.ACKNOWLEDGE_TIMEOUT_S = admin.ACKNOWLEDGE_TIMEOUT_S, 1.0
        try:
            with pytest.raises(GatewayUnavailable, match="did not take over configuration"), states.locked():
                publish.publish(states, admin.Admin(broken.settings.admin_url), old=good, new=bad)
        finally:
            admin.ACKNOWLEDGE_TIMEOUT_S = limit
        assert states.read("demo") == good
        assert broken.ask().status_code == 200


class TestDemonstration:
    def test_traffic_switches_data_and_sends_feedback(
        self, platform: ServingPlatform, serving: LocalServing, model: str, tmp_path: Path, project_root: Path
    ) -> None:
        platform.bring_up(serving, 1, "champion", model=model)
        first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
        first.write_text(self._record("one", '{"intent":"refund"}'))
        second.write_text(self._record("two", '{"intent": "cancel"}'))
        control, status = tmp_path / "control.json", tmp_path / "status.json"
        command = [
            sys.executable,
            str(project_root / "include/demo/traffic.py"),
            "--gateway",
            platform.settings.gateway_url,
        ]
        command += ["--model", model, "--data", str(first), "--rate", "40", "--feedback-share", "1"]
        traffic = subprocess.Popen([*command, "--control", str(control), "--status", str(status)])
        try:
            until(lambda: self._read(status).get("right", 0) >= 10, what="right answers")
            control.write_text(json.dumps({"data": str(second), "rate": 50}))
            until(lambda: self._read(status).get("wrong", 0) >= 10, what="wrong answers")
        finally:
            traffic.send_signal(signal.SIGTERM)
            assert traffic.wait(timeout=30) == 0
        last = self._read(status)
        assert (last["data"], last["rate"], last["failed"]) == (str(second), 50, 0)
        assert last["sent"] == last["answered"] == last["feedback"]
        all_facts(serving, last["sent"])
        feedback = until(lambda: self._feedback(serving, last["sent"]), what="all feedback is published")
        assert sum(fact.rating == "right" for fact in feedback) == last["right"]
        assert all(fact.corrected == (fact.rating == "wrong") for fact in feedback)

    @pytest.mark.slow
    @pytest.mark.workload_env
    def test_real_model_servers_reliable_and_not(
        self, workload_python: str, tmp_path: Path, project_root: Path
    ) -> None:
        model_dir = tmp_path / "weights"
        subprocess.run([workload_python, "-c", TINY_MODEL, str(model_dir)], check=True, timeout=300)
        platform = ServingPlatform(workload_python=workload_python)
        try:
            platform.start()
            unreliable = ("{python}", "{project}/include/demo/unreliable_server.py", "--model-dir", "{model_dir}")
            unreliable += ("--name", "{name}", "--port", "{port}", "--failure-share", "0.5")
            serving = platform.serving(runtimes={"unreliable": unreliable})
            for version, runtime, slot in ((1, "standard", "champion"), (2, "unreliable", "canary")):
                deployment = platform.deployment(version, runtime=runtime, model_dir=model_dir)
                serving.deploy(deployment, slot=slot)  # type: ignore[arg-type]
            until(lambda: serving.ready("champion"), what="the real server is ready", limit_s=240)
            until(lambda: serving.ready("canary"), what="the unreliable server is ready", limit_s=240)
            champion = platform.ask(stream=True, max_tokens=8, headers={"x-genai-variant": "champion"})
            fact = request_fact(serving, platform, champion)
            assert (fact.status, fact.deployment, fact.tokens) == (200, "demo-v1-standard", 8)
            assert fact.first_token_ms is not None
            assert 0 < fact.first_token_ms < fact.duration_ms
            statuses = [
                platform.ask(stream=True, max_tokens=2, headers={"x-genai-variant": "canary"}).status_code
                for _ in range(40)
            ]
            # 40 fair tosses are all alike less than once in 10^11 runs.
            assert set(statuses) == {200, 500}
            serving.rollback()
            assert serving.status().champion is not None
        finally:
            platform.close()

    def _record(self, prompt: str, answer: str) -> str:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return json.dumps({"id": prompt, "messages": messages}) + "\n"

    def _read(self, status: Path) -> dict[str, Any]:
        return dict(json.loads(status.read_text())) if status.exists() else {}

    def _feedback(self, serving: LocalServing, count: int) -> tuple[FeedbackFact, ...] | None:
        found = serving.observations(0).feedback
        return found if len(found) == count else None


TINY_MODEL = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
special = ["<pad>", "<s>", "</s>"]
trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tokenizer.train_from_iterator(["hello"], trainer)
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}"
config = LlamaConfig(vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                     num_attention_heads=2, bos_token_id=1, eos_token_id=None, pad_token_id=0)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
fast.save_pretrained(sys.argv[1])
"""
