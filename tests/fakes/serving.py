"""A serving target in a file: two slots, a clock of its own, and simulated traffic. The real interface, no servers.

Several processes may use one folder at once. Time is simulated too (:meth:`FakeServing.sleep`), so tests neither wait
nor depend on the machine. What a request meets depends on its number and on the weight in force when it arrived,
never on who asks or how often: crashes and races change nothing but the time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genai_operators.exceptions import GatewayUnavailable, ServingFailed
from genai_operators.serving.contract import (
    Deployment,
    FeedbackFact,
    ObservationBatch,
    RequestFact,
    RouteAck,
    ServingStatus,
)

START = 1_000_000.0


@dataclass(frozen=True)
class Behaviour:
    """How the servers of one deployment answer; rates are shares of its requests."""

    errors: float = 0.0
    invalid: float = 0.0
    refused: float = 0.0
    wrong: float = 0.0
    slow: float = 0.0
    ready_after_s: float = 3.0
    dead: bool = False


@dataclass
class World:
    """Everything the fake remembers. ``sends``: percent that is really sent where another one is asked for."""

    now: float = START
    rate: float = 20.0
    users: int = 1_000
    feedback_share: float = 0.3
    longest_s: float = 1.0
    gateway_down: bool = False
    sends: dict[str, float] = field(default_factory=dict)
    champion: dict[str, Any] | None = None
    canary: dict[str, Any] | None = None
    deployed_at: dict[str, float] = field(default_factory=dict)
    percent: float = 0.0
    route_version: int = 0
    routes: list[list[Any]] = field(default_factory=list)
    behaviour: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[list[Any]] = field(default_factory=list)


class FakeServing:
    """Implements :class:`genai_operators.serving.contract.Serving` over a folder."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    # --- for tests ---------------------------------------------------------------------------------------------

    def configure(self, **changes: Any) -> None:
        """Change the world, e.g. ``rate=50.0`` or ``gateway_down=True``."""
        with self._world() as world:
            for name, value in changes.items():
                assert hasattr(world, name), name
                setattr(world, name, value)

    def behave(self, deployment: Deployment, behaviour: Behaviour) -> None:
        """Say how a deployment answers from now on."""
        with self._world() as world:
            world.behaviour[deployment.id] = asdict(behaviour)

    def clock(self) -> float:
        """Simulated time."""
        return self._read().now

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass."""
        with self._world() as world:
            world.now += seconds

    def calls(self, name: str = "") -> list[list[Any]]:
        """What was asked for, oldest first: [name, argument, ...]."""
        return [call for call in self._read().calls if not name or call[0] == name]

    def weights(self) -> list[float]:
        """Shares of the canary over time, repetitions left out."""
        shares = [route[1] for route in self._read().routes]
        return [share for index, share in enumerate(shares) if index == 0 or share != shares[index - 1]]

    def is_free(self) -> bool:
        """Does no process hold the lock at this moment?"""
        with (self._folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    # --- Serving -----------------------------------------------------------------------------------------------

    def deploy(self, deployment: Deployment, *, slot: str) -> None:
        with self._answering("deploy", deployment.id, str(slot)) as world:
            held = getattr(world, str(slot))
            if held == deployment.to_json():
                return
            if str(slot) == "canary" and held is not None and world.percent > 0:
                raise ServingFailed("the canary slot has traffic")
            setattr(world, str(slot), deployment.to_json())
            world.deployed_at[deployment.id] = world.now
            if str(slot) == "canary":
                world.percent = 0.0
            _route(world)

    def ready(self, slot: str) -> bool:
        with self._answering("ready", str(slot)) as world:
            held = getattr(world, str(slot))
            if held is None:
                raise ServingFailed(f"the {slot} slot is empty")
            name = Deployment.from_json(held).id
            behaviour = _behaviour(world, name)
            if behaviour.dead:
                raise ServingFailed(f"{name} ended again and again; its log ends: out of memory")
            return world.now >= world.deployed_at[name] + behaviour.ready_after_s

    def set_weight(self, percent: float, *, release: str) -> RouteAck:
        with self._answering("set_weight", percent, release) as world:
            if percent > 0 and world.canary is None:
                raise ServingFailed("there is no canary to send traffic to")
            world.percent = percent
            _route(world)
            return RouteAck(route_version=world.route_version, percent=percent, acknowledged_at=world.now)

    def position(self) -> int:
        return _published(self._read())

    def observations(self, since: int) -> ObservationBatch:
        world = self._read()
        if world.gateway_down:
            raise GatewayUnavailable("the gateway does not answer")
        end = _published(world)
        requests = [_request(world, number) for number in range(since, end)]
        feedback = [fact for number in range(since, end) if (fact := _feedback(world, number)) is not None]
        return ObservationBatch(requests=tuple(requests), feedback=tuple(feedback), next=max(end, since))

    def promote(self) -> None:
        with self._answering("promote") as world:
            if world.canary is not None:
                world.champion, world.canary, world.percent = world.canary, None, 0.0
                _route(world)

    def rollback(self) -> None:
        with self._answering("rollback") as world:
            world.canary, world.percent = None, 0.0
            _route(world)

    def retire(self, slot: str) -> None:
        with self._answering("retire", str(slot)) as world:
            setattr(world, str(slot), None)
            world.percent = 0.0
            _route(world)

    def status(self) -> ServingStatus:
        world = self._read()
        if world.gateway_down:
            raise GatewayUnavailable("the gateway does not answer")
        held = (Deployment.from_json(slot) if slot else None for slot in (world.champion, world.canary))
        champion, canary = held
        return ServingStatus(champion=champion, canary=canary, percent=world.percent, route_version=world.route_version)

    # --- the file ----------------------------------------------------------------------------------------------

    @contextmanager
    def _answering(self, *call: Any) -> Iterator[World]:
        with self._world() as world:
            if world.gateway_down:
                raise GatewayUnavailable("the gateway does not answer")
            world.calls.append(list(call))
            yield world

    @contextmanager
    def _world(self) -> Iterator[World]:
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            world = self._read()
            yield world
            temporary = self._folder / "world.tmp"
            temporary.write_text(json.dumps(asdict(world)))
            temporary.replace(self._folder / "world.json")

    def _read(self) -> World:
        try:
            return World(**json.loads((self._folder / "world.json").read_text()))
        except FileNotFoundError:
            return World()


class FakeAliases:
    """Remembers where the alias was pointed."""

    def __init__(self, folder: Path | str) -> None:
        self._file = Path(folder) / "alias.txt"

    def set_champion(self, model: str, version: int) -> bool:
        moved = self.champion(model) != version
        temporary = self._file.with_name(f"alias.{os.getpid()}.{threading.get_ident()}")
        temporary.write_text(str(version))
        temporary.replace(self._file)
        return moved

    def champion(self, model: str) -> int | None:
        return int(self._file.read_text()) if self._file.exists() else None


def _route(world: World) -> None:
    world.route_version += 1
    ids = [Deployment.from_json(slot).id if slot else "" for slot in (world.champion, world.canary)]
    world.routes.append([world.now, world.percent, world.route_version, *ids])


def _behaviour(world: World, deployment: str) -> Behaviour:
    return Behaviour(**world.behaviour.get(deployment, {}))


def _published(world: World) -> int:
    return max(0, int((world.now - START - world.longest_s) * world.rate))


def _chance(number: int, what: str) -> float:
    digest = hashlib.blake2b(f"{number}:{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _request(world: World, number: int) -> RequestFact:
    arrived = START + number / world.rate
    in_force = [route for route in world.routes if route[0] <= arrived]
    _, percent, route_version, champion, canary = in_force[-1] if in_force else (0, 0.0, 0, "", "")
    on_canary = _chance(number, "arm") < world.sends.get(str(percent), percent) / 100
    deployment = canary if on_canary else champion
    behaviour = _behaviour(world, deployment)
    failed = not deployment or _chance(number, "error") < behaviour.errors
    seconds = (0.2 + 0.8 * _chance(number, "duration")) * world.longest_s
    first = 900.0 if _chance(number, "slow") < behaviour.slow else 100.0
    return RequestFact(
        request_id=f"r{number}",
        unit=f"u{int(_chance(number, 'user') * world.users)}",
        arrived_at=arrived,
        completed_at=arrived + seconds,
        variant="canary" if on_canary else "champion",
        deployment=deployment,
        propensity=percent / 100,
        route_version=route_version,
        assigned=True,
        status=500 if failed else 200,
        attempts=1,
        timed_out=False,
        first_token_ms=None if failed else first,
        max_gap_ms=None,
        tokens=None if failed else 12,
        duration_ms=seconds * 1000,
        valid_output=None if failed else _chance(number, "invalid") >= behaviour.invalid,
        refused=None if failed else _chance(number, "refused") < behaviour.refused,
    )


def _feedback(world: World, number: int) -> FeedbackFact | None:
    if _chance(number, "feedback") >= world.feedback_share:
        return None
    request = _request(world, number)
    if request.status != 200:
        return None
    wrong = _chance(number, "wrong") < _behaviour(world, request.deployment).wrong
    rating = "wrong" if wrong else "right"
    return FeedbackFact(request_id=request.request_id, at=request.completed_at + 0.5, rating=rating, corrected=wrong)
