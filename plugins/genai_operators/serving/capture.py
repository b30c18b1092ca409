"""One line of the gateway's access log becomes facts and text.

The gateway only measures and keeps; whatever needs understanding (JSON, server-sent events, Unicode) happens here, away
from the request. Bodies arrive in base64, cut at a number of bytes, perhaps in the middle of a character or an event.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from genai_operators.refusals import declines
from genai_operators.serving.contract import FeedbackFact, OutputKind, RequestFact

CLIENT_LEFT = 499
BROKE_OFF = 502
MAX_CORRECTION_CHARACTERS = 100_000

# https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage : response flags
_TIMEOUT_FLAGS = {"UT", "SI", "DT", "UMSDR"}
_CLIENT_FLAGS = {"DC", "DPE"}


@dataclass(frozen=True, kw_only=True)
class CapturedRequest:
    """A request to a model: what happened, and what was said. ``messages`` and ``answer`` are None when unknown."""

    model: str
    fact: RequestFact
    messages: list[dict[str, Any]] | None
    answer: str | None
    truncated: bool

    def text(self) -> dict[str, Any]:
        """The record for the text batch."""
        fact = self.fact
        return {
            "kind": "request",
            "request_id": fact.request_id,
            "arrived_at": fact.arrived_at,
            "variant": fact.variant,
            "deployment": fact.deployment,
            "status": fact.status,
            "messages": self.messages or [],
            "answer": self.answer,
            "valid_output": fact.valid_output,
            "truncated": self.truncated,
        }


@dataclass(frozen=True, kw_only=True)
class CapturedFeedback:
    """A user's judgement, not yet joined with its request."""

    fact: FeedbackFact
    correction: str | None

    def text(self, *, messages: list[dict[str, Any]], answer: str | None) -> dict[str, Any]:
        """The record for the text batch, with the prompt and the answer that it judges."""
        fact = self.fact
        return {
            "kind": "feedback",
            "request_id": fact.request_id,
            "at": fact.at,
            "rating": fact.rating,
            "correction": self.correction,
            "messages": messages,
            "answer": answer,
        }


class LineUnreadable(ValueError):
    """A line of the access log is not what the gateway writes."""


def parse_line(
    line: bytes, *, hashed: Callable[[str], str], output_of: Callable[[str], OutputKind]
) -> CapturedRequest | CapturedFeedback | None:
    """Read one line; None for what is no traffic of a model (a list of models, a refused request).

    :param hashed: keyed hash of an id.
    :param output_of: the output kind of a model by name.
    :raises LineUnreadable: the line is damaged, as when the gateway was killed while it wrote.
    """
    try:
        entry = json.loads(line)
        seen = entry["seen"] or {}
        if "feedback" in seen and entry["status"] == 202:
            return _feedback(entry, body=_decoded(seen["feedback"]), hashed=hashed)
        if not entry["route"]:
            return None
        return _request(entry, route=entry["route"], seen=seen, hashed=hashed, output_of=output_of)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LineUnreadable(f"{type(error).__name__}") from error


def _request(
    entry: Mapping[str, Any],
    *,
    route: Mapping[str, Any],
    seen: Mapping[str, Any],
    hashed: Callable[[str], str],
    output_of: Callable[[str], OutputKind],
) -> CapturedRequest:
    flags = set(str(entry["flags"]).split(",")) - {"-"}
    arrived_at = float(entry["at"])
    request_id = hashed(entry["id"])
    user = _decoded(seen["user"]).decode("utf-8", errors="replace") if "user" in seen else None
    status = _status(int(entry["status"]), flags=flags, broken=bool(seen.get("broken")))
    cut = seen.get("response_bytes", 0) > seen.get("limit", 0)
    answer, usage = parse_answer(_decoded(seen.get("response", "")))
    kept = "response" in seen
    whole = kept and not cut and status == 200
    streamed_tokens = int(seen["tokens"]) if "tokens" in seen else None
    fact = RequestFact(
        request_id=request_id,
        unit=hashed(f"user {user}") if user else request_id,
        arrived_at=arrived_at,
        completed_at=arrived_at + int(entry["ms"]) / 1000,
        variant=_variant(route["variant"]),
        deployment=route["deployment"],
        propensity=float(route["percent"]) / 100,
        route_version=int(route["route_version"]),
        assigned=bool(route["assigned"]),
        status=status,
        attempts=int(entry["attempts"]),
        timed_out=bool(flags & _TIMEOUT_FLAGS),
        first_token_ms=_number(seen.get("first_token_ms")),
        max_gap_ms=_number(seen.get("max_gap_ms")),
        tokens=usage if usage is not None else streamed_tokens,
        duration_ms=float(entry["ms"]),
        valid_output=_valid(answer, output_of(route["model"])) if whole else None,
        refused=declines(answer or "") if whole else None,
    )
    return CapturedRequest(
        model=route["model"],
        fact=fact,
        messages=parse_messages(_decoded(seen.get("request", ""))),
        answer=answer if kept else None,
        truncated=cut or seen.get("request_bytes", 0) > seen.get("limit", 0),
    )


def _status(status: int, *, flags: set[str], broken: bool) -> int:
    if status != 200:
        return status or CLIENT_LEFT
    if flags & _CLIENT_FLAGS:
        return CLIENT_LEFT
    return BROKE_OFF if flags or broken else status


def _feedback(entry: Mapping[str, Any], *, body: bytes, hashed: Callable[[str], str]) -> CapturedFeedback:
    value = parse_json(body)
    correction = value.get("correction")
    if correction is not None and not isinstance(correction, str):
        correction = json.dumps(correction, ensure_ascii=False)
    if correction is not None:
        correction = correction[:MAX_CORRECTION_CHARACTERS]
    rating: Literal["right", "wrong"] = "right" if value["rating"] == "right" else "wrong"
    fact = FeedbackFact(
        request_id=hashed(value["request_id"]),
        at=float(entry["at"]),
        rating=rating,
        corrected=correction is not None,
    )
    return CapturedFeedback(fact=fact, correction=correction)


# --- bodies ------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """Read JSON that a stranger wrote. Half of a surrogate pair, which no UTF-8 file can hold, becomes ``?``.

    :raises ValueError: it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_messages(body: bytes) -> list[dict[str, Any]] | None:
    """The messages of a chat request, or a legacy prompt as one; None when the body was cut or is something else."""
    try:
        value = parse_json(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if isinstance(prompt := value.get("prompt"), str):
        return [{"role": "user", "content": prompt}]
    messages = value.get("messages")
    return messages if isinstance(messages, list) and all(isinstance(item, dict) for item in messages) else None


def parse_answer(body: bytes) -> tuple[str | None, int | None]:
    """The text that a model answered, whole or streamed, and the number of its tokens, if the server says.

    What is not in the shape of OpenAI's API is no answer: a server that is broken so must not vanish from the facts.
    """
    text = body.decode("utf-8", errors="ignore")
    try:
        return _of_choices([parse_json(text)] if text.lstrip().startswith("{") else list(_events(text)))
    except (ValueError, TypeError, AttributeError):
        return None, None


def _events(text: str) -> Iterator[dict[str, Any]]:
    """The JSON data of server-sent events; ``[DONE]`` and an event that was cut are passed over."""
    for event in text.replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].strip(" ") for line in event.split("\n") if line.startswith("data:"))
        try:
            value = parse_json(data)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _of_choices(events: list[dict[str, Any]]) -> tuple[str | None, int | None]:
    pieces: list[str] = []
    tokens: int | None = None
    for event in events:
        for choice in event.get("choices") or ():
            if choice.get("index", 0) == 0:
                part = choice.get("message") or choice.get("delta") or {}
                pieces.append(part.get("content") or choice.get("text") or "")
        usage = event.get("usage") or {}
        if isinstance(usage.get("completion_tokens"), int):
            tokens = usage["completion_tokens"]
    return ("".join(pieces) if any("choices" in event for event in events) else None), tokens


def _valid(answer: str | None, kind: OutputKind) -> bool:
    """Is the answer what the model promises: a JSON object, or any text?"""
    if answer is None:
        return False
    if kind is OutputKind.TEXT:
        return bool(answer.strip())
    try:
        return isinstance(parse_json(answer), dict)
    except ValueError:
        return False


def _decoded(value: str) -> bytes:
    return base64.b64decode(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _variant(value: str) -> Literal["champion", "canary"]:
    return "canary" if value == "canary" else "champion"
