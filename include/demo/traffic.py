"""Users of a model, simulated: sends messages through the gateway and judges some of the answers.

    python include/demo/traffic.py --gateway http://127.0.0.1:8080 --model support_bot --data usual.jsonl --rate 8 \\
        --feedback-share 0.5 --control control.json --status status.json --max-seconds 600

Arrivals are a Poisson process that does not wait for answers, as real users do not: when too many requests are open,
the next ones are counted as shed. Data are JSON lines with ``messages``, the last of which is the true answer; the
others are sent. The control file, ``{"data": PATH, "rate": N}``, is read each second and may appear later; the status
file is written as often. Ends on SIGTERM or after ``--max-seconds``, when the open requests have been answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

REQUEST_TIMEOUT_S = 60.0
CONTROL_INTERVAL_S = 1.0
LATENCIES_KEPT = 1000


class Dataset:
    """Records of a JSONL file in a random order, over and over."""

    def __init__(self, path: Path, *, dice: random.Random) -> None:
        with path.open(encoding="utf-8") as file:
            self.records = [json.loads(line)["messages"] for line in file if line.strip()]
        if not self.records:
            raise ValueError(f"{path} holds no records")
        self.path = path
        self._dice = dice
        self._order = self._shuffled()

    def next(self) -> list[dict[str, str]]:
        return next(self._order)

    def _shuffled(self) -> Iterator[list[dict[str, str]]]:
        while True:
            yield from self._dice.sample(self.records, k=len(self.records))


class Traffic:
    """The users. Counters are what they saw, not what the gateway logged."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.dice = random.Random(options.seed)
        self.data = Dataset(options.data, dice=self.dice)
        self.rate: float = options.rate
        self.counts: Counter[str] = Counter()
        self.latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.first_tokens_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.started_at = time.time()
        self.stop = asyncio.Event()
        self.control_error: str | None = None

    async def run(self) -> None:
        """Send until told to stop, then wait for the open requests."""
        most = self.options.max_open
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        async with httpx.AsyncClient(base_url=self.options.gateway, timeout=REQUEST_TIMEOUT_S, limits=limits) as client:
            clerk = asyncio.create_task(self._follow_control())
            await self._arrivals(client)
            clerk.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await clerk
        self.write_status()

    async def _arrivals(self, client: httpx.AsyncClient) -> None:
        open_requests: set[asyncio.Task[None]] = set()
        end = time.monotonic() + self.options.max_seconds
        due = time.monotonic()
        while not self.stop.is_set() and time.monotonic() < end:
            due = max(due + self.dice.expovariate(self.rate), time.monotonic() - 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), timeout=max(0.0, min(due, end) - time.monotonic()))
                break
            if time.monotonic() < due:
                continue
            if len(open_requests) >= self.options.max_open:
                self.counts["shed"] += 1
                continue
            task = asyncio.create_task(self._one_user(client, self.data.next()))
            open_requests.add(task)
            task.add_done_callback(open_requests.discard)
        await asyncio.gather(*open_requests)

    async def _one_user(self, client: httpx.AsyncClient, messages: list[dict[str, str]]) -> None:
        """Ask, read the stream, and perhaps judge."""
        *prompt, truth = messages
        self.counts["sent"] += 1
        try:
            request_id, answer = await self._ask(client, prompt)
        except (httpx.HTTPError, ValueError) as error:
            self.counts["failed"] += 1
            self.counts[f"failed:{type(error).__name__}"] += 1
            return
        if answer is None:
            self.counts["failed"] += 1
            return
        self.counts["answered"] += 1
        right = same_answer(answer, truth["content"])
        self.counts["right" if right else "wrong"] += 1
        if self.dice.random() < self.options.feedback_share:
            await self._judge(client, request_id, right=right, truth=truth["content"])

    async def _ask(self, client: httpx.AsyncClient, prompt: list[dict[str, str]]) -> tuple[str, str | None]:
        """The request id and the streamed answer; None when the answer is an error or breaks off."""
        body = {
            "model": self.options.model,
            "messages": prompt,
            "stream": True,
            "max_tokens": self.options.max_tokens,
        }
        began = time.monotonic()
        pieces: list[str] = []
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            self.counts[f"status:{response.status_code}"] += 1
            request_id = response.headers.get("x-request-id", "")
            if response.status_code != 200:
                await response.aread()
                return request_id, None
            async for line in response.aiter_lines():
                if (event := event_of(line)) is None:
                    continue
                if "error" in event:
                    return request_id, None
                if text := content_of(event):
                    if not pieces:
                        self.first_tokens_ms.append((time.monotonic() - began) * 1000)
                    pieces.append(text)
        self.latencies_ms.append((time.monotonic() - began) * 1000)
        return request_id, "".join(pieces)

    async def _judge(self, client: httpx.AsyncClient, request_id: str, *, right: bool, truth: str) -> None:
        body: dict[str, Any] = {"request_id": request_id, "rating": "right" if right else "wrong"}
        if not right:
            body["correction"] = truth
        try:
            response = await client.post("/v1/feedback", json=body)
        except httpx.HTTPError:
            self.counts["feedback_failed"] += 1
            return
        self.counts["feedback" if response.status_code == 202 else "feedback_failed"] += 1

    # --- control and status ------------------------------------------------------------------------------------

    async def _follow_control(self) -> None:
        while True:
            self.read_control()
            self.write_status()
            await asyncio.sleep(CONTROL_INTERVAL_S)

    def read_control(self) -> None:
        """Switch to what the control file says; a file that makes no sense is reported and changes nothing."""
        if self.options.control is None or not self.options.control.exists():
            return
        try:
            wish = json.loads(self.options.control.read_text(encoding="utf-8"))
            path, rate = Path(wish.get("data", self.data.path)), float(wish.get("rate", self.rate))
            if path != self.data.path:
                self.data = Dataset(path, dice=self.dice)
            if rate <= 0:
                raise ValueError(f"the rate must be above 0, not {rate}")
            self.rate = rate
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            self.control_error = f"{self.options.control}: {error}"
        else:
            self.control_error = None

    def write_status(self) -> None:
        if self.options.status is None:
            return
        value = {
            "started_at": self.started_at,
            "updated_at": time.time(),
            "data": str(self.data.path),
            "rate": self.rate,
            "control_error": self.control_error,
            "latency_ms": percentiles(self.latencies_ms),
            "first_token_ms": percentiles(self.first_tokens_ms),
            **{
                name: self.counts[name] for name in ("sent", "answered", "failed", "shed", "right", "wrong", "feedback")
            },
            "counts": dict(sorted(self.counts.items())),
        }
        fresh = self.options.status.with_name(f".{self.options.status.name}.new")
        fresh.write_text(json.dumps(value, indent=1), encoding="utf-8")
        fresh.replace(self.options.status)


def event_of(line: str) -> dict[str, Any] | None:
    """The JSON of a server-sent event's line; None for any other line."""
    if not line.startswith("data:") or (data := line[5:].strip()) == "[DONE]":
        return None
    value = json.loads(data)
    return value if isinstance(value, dict) else None


def content_of(event: dict[str, Any]) -> str:
    """The text that an event adds."""
    choices = event.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


def same_answer(answer: str, truth: str) -> bool:
    """Equal as JSON values, or else as text without surrounding space."""
    try:
        return bool(json.loads(answer) == json.loads(truth))
    except ValueError:
        return answer.strip() == truth.strip()


def percentiles(values: deque[float]) -> dict[str, float]:
    """Median and 95th percentile of the newest values, in milliseconds; empty without any."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {"p50": round(ordered[len(ordered) // 2], 1), "p95": round(ordered[int(len(ordered) * 0.95)], 1)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", required=True, help="base URL of the gateway")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL records with messages")
    parser.add_argument("--rate", type=float, default=8.0, help="requests per second")
    parser.add_argument("--feedback-share", type=float, default=0.5, help="share of the answers that users judge")
    parser.add_argument("--max-open", type=int, default=64, help="requests under way at once; more are shed")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--control", type=Path, help="file that switches data and rate")
    parser.add_argument("--status", type=Path, help="file that gets the counters each second")
    parser.add_argument("--max-seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.rate <= 0:
        parser.error("--rate must be above 0")
    if not options.data.is_file():
        parser.error(f"--data: there is no file {options.data}")
    return options


async def run(options: argparse.Namespace) -> None:
    traffic = Traffic(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, traffic.stop.set)
    await traffic.run()


def main() -> int:
    asyncio.run(run(parse()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
