"""What a line of the access log is taken to mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from genai_operators.serving.capture import (
    CapturedFeedback,
    CapturedRequest,
    LineUnreadable,
    parse_answer,
    parse_line,
    parse_messages,
)
from genai_operators.serving.contract import OutputKind, RequestFact
from tests.fakes.access_log import LIMIT, answer_body, encoded, feedback_line, request_line


def parsed(line: bytes, *, output: OutputKind = OutputKind.TEXT) -> CapturedRequest:
    found = parse_line(line, hashed=lambda value: f"#{value}", output_of=lambda _: output)
    assert isinstance(found, CapturedRequest)
    return found


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n" for value in values)


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


class TestRequest:
    def test_propensity_and_route_come_from_the_line_itself(self) -> None:
        route = {"percent": 5, "route_version": 7, "variant": "canary", "deployment": "demo-v2-fake"}
        fact = parsed(request_line("a", route=route)).fact
        assert (fact.propensity, fact.route_version, fact.variant) == (0.05, 7, "canary")
        assert fact.deployment == "demo-v2-fake"
        assert fact.assigned

    def test_asked_for_variant_is_no_part_of_the_experiment(self) -> None:
        assert not parsed(request_line("a", route={"assigned": False})).fact.assigned

    def test_ids_leave_only_hashed(self) -> None:
        captured = parsed(request_line("secret-id", seen={"user": encoded(b"anna")}))
        assert captured.fact.request_id == "#secret-id"
        assert captured.fact.unit == "#user anna"
        assert "anna" not in json.dumps(captured.text())

    def test_without_a_user_each_request_is_its_own_unit(self) -> None:
        fact = parsed(request_line("a")).fact
        assert fact.unit == fact.request_id

    def test_completed_is_arrived_plus_duration(self) -> None:
        fact = parsed(request_line("a", at=50.25, ms=500)).fact
        assert (fact.arrived_at, fact.completed_at, fact.duration_ms) == (50.25, 50.75, 500.0)

    def test_retries_are_visible(self) -> None:
        assert parsed(request_line("a", attempts=3)).fact.attempts == 3

    def test_a_fact_survives_json(self) -> None:
        fact = parsed(request_line("a")).fact
        assert RequestFact.from_json(json.loads(json.dumps(fact.to_json()))) == fact

    @pytest.mark.parametrize(
        ("changes", "status", "timed_out"),
        [
            ({}, 200, False),
            ({"status": 500}, 500, False),
            ({"status": 504, "flags": "UT"}, 504, True),
            ({"flags": "UC"}, 502, False),
            ({"flags": "UT"}, 502, True),
            ({"seen": {"broken": True}}, 502, False),
            ({"flags": "DC"}, 499, False),
            ({"status": 0, "flags": "DC"}, 499, False),
            ({"status": 503, "flags": "UF,URX"}, 503, False),
        ],
    )
    def test_status_says_who_failed(self, changes: dict[str, Any], status: int, timed_out: bool) -> None:
        fact = parsed(request_line("a", **changes)).fact
        assert (fact.status, fact.timed_out) == (status, timed_out)


class TestAnswer:
    def test_streamed_contents_are_joined_and_usage_is_read(self) -> None:
        end = {"choices": [{"index": 0, "delta": {}}], "usage": {"completion_tokens": 17}}
        assert parse_answer(events(delta("hé"), delta("llo 😀"), end) + b"data: [DONE]\n\n") == ("héllo 😀", 17)

    def test_whole_answer(self) -> None:
        assert parse_answer(json.dumps(answer_body("hi")).encode()) == ("hi", None)

    def test_legacy_completion(self) -> None:
        assert parse_answer(b'{"choices": [{"text": "hi"}]}') == ("hi", None)

    def test_stream_cut_within_a_character_keeps_what_came_before(self) -> None:
        whole = events(delta("ab"), delta("😀"))
        cut = whole[: whole.index("😀".encode()) + 2]
        assert parse_answer(cut) == ("ab", None)

    def test_an_error_has_no_answer(self) -> None:
        assert parse_answer(b'{"error": {"message": "no"}}') == (None, None)

    def test_whole_answer_that_was_cut_has_no_text(self) -> None:
        assert parse_answer(json.dumps(answer_body("long")).encode()[:20]) == (None, None)

    def test_tokens_fall_back_to_the_streamed_contents(self) -> None:
        seen = {"tokens": 9, "response": encoded(events(delta("x")))}
        assert parsed(request_line("a", seen=seen)).fact.tokens == 9

    def test_only_the_first_choice_counts(self) -> None:
        other = {"choices": [{"index": 1, "delta": {"content": "no"}}]}
        assert parse_answer(events(delta("yes"), other))[0] == "yes"


class TestValidOutput:
    @pytest.mark.parametrize(
        ("answer", "kind", "valid"),
        [
            ('{"intent": "refund"}', OutputKind.JSON, True),
            ('{"intent": ', OutputKind.JSON, False),
            ('["refund"]', OutputKind.JSON, False),
            ("refund", OutputKind.JSON, False),
            ("refund", OutputKind.TEXT, True),
            ("  \n", OutputKind.TEXT, False),
            ("", OutputKind.TEXT, False),
        ],
    )
    def test_by_the_models_output_kind(self, answer: str, kind: OutputKind, valid: bool) -> None:
        line = request_line("a", seen={"response": encoded(answer_body(answer))})
        assert parsed(line, output=kind).fact.valid_output is valid

    @pytest.mark.parametrize(
        ("answer", "refused"),
        [("I'm sorry, but I can't", True), ("I can’t help with that.", True), ("It can help.", False), ("", False)],
    )
    def test_whether_it_declines(self, answer: str, refused: bool) -> None:
        line = request_line("a", seen={"response": encoded(answer_body(answer))})
        fact = parsed(line, output=OutputKind.TEXT).fact
        assert fact.refused is refused
        assert RequestFact.from_json(fact.to_json()) == fact

    def test_facts_from_before_declining_was_looked_at_can_be_read(self) -> None:
        record = parsed(request_line("a")).fact.to_json()
        del record["refused"]
        assert RequestFact.from_json(record).refused is None
        del record["status"]
        with pytest.raises(KeyError, match="status"):
            RequestFact.from_json(record)

    @pytest.mark.parametrize(
        "changes", [{"status": 500}, {"seen": {"response_bytes": LIMIT + 1}}, {"flags": "UC"}, {"flags": "DC"}]
    )
    def test_unknown_when_the_answer_is_not_whole(self, changes: dict[str, Any]) -> None:
        fact = parsed(request_line("a", **changes)).fact
        assert (fact.valid_output, fact.refused) == (None, None)

    def test_unknown_when_nothing_is_captured(self) -> None:
        entry = json.loads(request_line("a"))
        for name in ("request", "response", "request_bytes", "response_bytes"):
            del entry["seen"][name]
        captured = parsed(json.dumps(entry | {"seen": entry["seen"] | {"limit": 0}}).encode())
        assert (captured.fact.valid_output, captured.answer, captured.text()["messages"]) == (None, None, [])


class TestPrompt:
    def test_messages(self) -> None:
        messages = [{"role": "user", "content": "ü 漢"}]
        assert parse_messages(json.dumps({"messages": messages}).encode()) == messages

    def test_legacy_prompt_becomes_a_message(self) -> None:
        assert parse_messages(b'{"prompt": "hi"}') == [{"role": "user", "content": "hi"}]

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"messages": "hi"}', b'{"messages": ["hi"]}', b'{"messages": [{"ro']
    )
    def test_anything_else_is_unknown(self, body: bytes) -> None:
        assert parse_messages(body) is None

    def test_a_cut_request_is_marked(self) -> None:
        assert parsed(request_line("a", seen={"request_bytes": LIMIT + 1})).truncated


class TestFeedback:
    def feedback(self, line: bytes) -> CapturedFeedback:
        found = parse_line(line, hashed=lambda value: f"#{value}", output_of=lambda _: OutputKind.TEXT)
        assert isinstance(found, CapturedFeedback)
        return found

    def test_right(self) -> None:
        found = self.feedback(feedback_line("a", at=7.0))
        assert (found.fact.request_id, found.fact.at, found.fact.rating, found.fact.corrected) == (
            "#a",
            7.0,
            "right",
            False,
        )

    def test_correction_is_kept(self) -> None:
        found = self.feedback(feedback_line("a", rating="wrong", correction="Größe"))
        assert (found.fact.rating, found.fact.corrected, found.correction) == ("wrong", True, "Größe")

    def test_correction_given_as_json_becomes_its_text(self) -> None:
        found = self.feedback(feedback_line("a", rating="wrong", correction={"intent": "refund"}))
        assert found.correction == '{"intent": "refund"}'


class TestHostileInput:
    """One request of a stranger must not stop the ingest, nor leave text that no later stage can read."""

    DEEP = "[" * 5_000 + "]" * 5_000

    def test_nested_too_deeply_is_an_unknown_prompt(self) -> None:
        body = b'{"model":"demo","messages":' + self.DEEP.encode() + b"}"
        captured = parsed(request_line("a", seen={"request": encoded(body)}))
        assert captured.messages is None
        assert captured.fact.status == 200

    @pytest.mark.parametrize("opening", ["[" * 5_000, '{"a":' * 5_000])
    def test_an_answer_of_brackets_alone_is_not_valid(self, opening: str) -> None:
        captured = parsed(request_line("a", seen={"response": encoded(answer_body(opening))}), output=OutputKind.JSON)
        assert captured.fact.valid_output is False
        assert captured.answer == opening

    def test_feedback_nested_too_deeply_is_passed_over(self) -> None:
        line = json.loads(feedback_line("a"))
        line["seen"]["feedback"] = encoded(b'{"request_id":"a","rating":"right","x":' + self.DEEP.encode() + b"}")
        with pytest.raises(LineUnreadable):
            parse_line(json.dumps(line).encode(), hashed=str, output_of=lambda _: OutputKind.TEXT)

    def test_half_a_surrogate_pair_is_replaced(self) -> None:
        messages = parse_messages(rb'{"messages":[{"role":"user","content":"a\ud800b"}]}')
        assert messages == [{"role": "user", "content": "a?b"}]

    def test_a_whole_surrogate_pair_is_kept(self) -> None:
        messages = parse_messages(rb'{"messages":[{"role":"user","content":"\ud83d\ude00"}]}')
        assert messages == [{"role": "user", "content": "\N{GRINNING FACE}"}]

    @pytest.mark.parametrize(
        "body", [{"choices": ["x"]}, {"choices": 1}, {"choices": [{"message": {"content": 5}}]}, {"usage": [1]}]
    )
    def test_a_server_that_answers_in_another_shape_stays_in_the_facts(self, body: Any) -> None:
        captured = parsed(request_line("a", seen={"response": encoded(body)}), output=OutputKind.JSON)
        assert captured.answer is None
        assert captured.fact.valid_output is False


class TestOtherLines:
    def test_no_traffic_of_a_model(self) -> None:
        line = request_line("a", seen={})
        entry = json.loads(line) | {"route": None, "seen": None, "status": 404}
        assert parse_line(json.dumps(entry).encode(), hashed=str, output_of=lambda _: OutputKind.TEXT) is None

    @pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"seen": 3}', request_line("a")[:-40]])
    def test_damage_is_told_from_traffic(self, line: bytes) -> None:
        with pytest.raises(LineUnreadable):
            parse_line(line, hashed=str, output_of=lambda _: OutputKind.TEXT)
