"""One model on this machine: Envoy in front of servers that the platform's supervisord runs.

Order of every change: state file, clusters, routes, and only when the gateway acknowledged the routes, the removal of
what they no longer name. So at no moment does a route name a server that the gateway does not know, and no request that
is under way is cut.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Literal

from genai_operators.exceptions import ServingFailed
from genai_operators.serving import batches, gateway
from genai_operators.serving.admin import Admin
from genai_operators.serving.contract import (
    Deployment,
    FeedbackFact,
    GatewaySettings,
    ObservationBatch,
    RequestFact,
    RouteAck,
    ServeOptions,
    ServingStatus,
    Slot,
)
from genai_operators.serving.publish import publish
from genai_operators.serving.servers import Servers, free_port
from genai_operators.serving.startup import platform_programs
from genai_operators.serving.state import ModelState, Server, StateDirectory
from genai_operators.store import Store

__all__ = ["LocalServing", "platform_programs"]

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 30.0
DRAIN_POLL_S = 0.1
# A request may have chosen its route just before the gateway switched and be counted at its server just after.
DRAIN_MINIMUM_S = 0.5
MAX_BATCHES_PER_READ = 500


class LocalServing:
    """Implements :class:`~genai_operators.serving.contract.Serving` for one model on this machine.

    :param model: the public model name.
    :param settings: where the gateway is.
    :param store: where the ingest publishes traffic.
    :param options: what the model file says about serving.
    """

    def __init__(self, model: str, *, settings: GatewaySettings, store: Store, options: ServeOptions) -> None:
        self._model = model
        self._store = store
        self._options = options
        self._states = StateDirectory(settings.directory.resolve())
        self._admin = Admin(settings.admin_url)
        self._servers = Servers(settings=settings, runtimes=options.runtimes)

    # --- slots -------------------------------------------------------------------------------------------------

    def deploy(self, deployment: Deployment, *, slot: Literal["champion", "canary"]) -> None:
        """Start a server and return at once. The canary starts without traffic, reachable by header only.

        A champion that answers is never replaced here: deploy to the canary slot and promote.

        :raises ServingFailed: the slot or the model directory does not allow it.
        :raises GatewayUnavailable: nothing was changed.
        """
        if deployment.model != self._model:
            raise ServingFailed(f"{deployment.id} is a version of {deployment.model}, not of {self._model}")
        self._servers.check(deployment)
        self._admin.check()
        with self._states.locked():
            state = self._state()
            held = _held(state, slot)
            if held is not None and held.deployment.same_as(deployment):
                self._servers.start(self._refreshed(state, held, deployment, Slot(slot)))
            else:
                self._place(state, deployment, Slot(slot))

    def _refreshed(self, state: ModelState, held: Server, deployment: Deployment, slot: Slot) -> Server:
        """What is deployed already, under the options of today; its directory is replaced only if it is gone."""
        if not Path(held.deployment.model_dir).is_dir():
            held = dataclasses.replace(self._servers.place(deployment), port=held.port)
        percent = state.percent
        self._move(dataclasses.replace(_with(state, slot, held), percent=percent))
        return held

    def _place(self, state: ModelState, deployment: Deployment, slot: Slot) -> None:
        """Give a deployment a port, a place in the state and routes, then start it. What held the slot drains."""
        self._check_free(state, deployment, slot)
        draining = [server for server in state.draining if server.deployment.id != deployment.id]
        if (held := _held(state, slot)) is not None and held.deployment.id != deployment.id:
            draining.append(held)
        server = self._servers.place(deployment)
        self._move(_with(dataclasses.replace(state, draining=tuple(draining)), slot, server))
        self._servers.start(server)
        log.info("Started %s on port %s as %s", deployment.id, server.port, slot)

    def _check_free(self, state: ModelState, deployment: Deployment, slot: Slot) -> None:
        other = state.canary if slot is Slot.CHAMPION else state.champion
        if other is not None and other.deployment.id == deployment.id:
            raise ServingFailed(f"{deployment.id} is in the other slot already; release a new version, or promote it")
        held = _held(state, slot)
        if held is None:
            return
        if slot is Slot.CANARY and state.percent > 0:
            raise ServingFailed(
                f"the canary slot of {self._model} holds {held.deployment.id} with {state.percent:g} % of the traffic; "
                "roll it back or promote it first"
            )
        if slot is Slot.CHAMPION and self._servers.healthy(held):
            raise ServingFailed(
                f"{held.deployment.id} serves as champion of {self._model}; deploy {deployment.id} to the canary slot "
                "and promote it, so that no request is lost"
            )

    def ready(self, slot: Literal["champion", "canary"]) -> bool:
        """Is the server up, and has it generated one token? That token also warms it up.

        :raises ServingFailed: the slot is empty, or the server was given up; the message has its last log lines.
        """
        server = _held(self._state(), slot)
        if server is None:
            raise ServingFailed(f"the {slot} slot of {self._model} is empty; deploy something first")
        if self._servers.is_down(server):
            with self._states.locked():
                self._servers.start(server)
            return False
        if self._servers.port_was_taken(server):
            self._move_port(server)
            return False
        self._servers.check_alive(server)
        return self._servers.healthy(server) and self._servers.generates(server)

    def retire(self, slot: Literal["champion", "canary"]) -> None:
        """Empty a slot: its traffic ends first, then its requests, then its server."""
        with self._states.locked():
            state = self._state()
            if (server := _held(state, slot)) is not None:
                self._admin.check()
                draining = dataclasses.replace(state, percent=0.0, draining=(*state.draining, server))
                self._move(_with(draining, Slot(slot), None))
        self._drain()

    # --- traffic -----------------------------------------------------------------------------------------------

    def set_weight(self, percent: float, *, release: str) -> RouteAck:
        """Send a share of the requests to the canary; return when the gateway routes so.

        :param percent: 0 to 100.
        :param release: who decided, kept in the state.
        :raises GatewayUnavailable: the gateway is down or does not take the route over; the old share stands.
        """
        if not 0 <= percent <= 100:
            raise ServingFailed(f"the canary's share must be between 0 and 100 percent, not {percent}")
        self._admin.check()
        with self._states.locked():
            state = self._state()
            if percent > 0 and state.canary is None:
                raise ServingFailed(f"{self._model} has no canary to send {percent:g} % to; deploy one first")
            new = dataclasses.replace(state, percent=float(percent), release=release)
            version, at = self._move(new)
        return RouteAck(route_version=version, percent=float(percent), acknowledged_at=at)

    def promote(self) -> None:
        """Swap the slots' pointers: the canary's server becomes the champion without a restart.

        Without a canary there is nothing to do but to end an earlier promotion's draining.
        """
        with self._states.locked():
            state = self._state()
            if state.canary is not None:
                self._admin.check()
                old = (state.champion,) if state.champion is not None else ()
                new = dataclasses.replace(
                    state, champion=state.canary, canary=None, percent=0.0, draining=(*state.draining, *old)
                )
                self._move(new)
        self._drain()

    def rollback(self) -> None:
        """Return all traffic to the champion, then retire the canary."""
        self.retire("canary")

    def status(self) -> ServingStatus:
        """What the gateway was last told."""
        state = self._state()
        return ServingStatus(
            champion=state.champion.deployment if state.champion else None,
            canary=state.canary.deployment if state.canary else None,
            percent=state.percent,
            route_version=state.route_version,
        )

    # --- observations ------------------------------------------------------------------------------------------

    def position(self) -> int:
        """Where :meth:`observations` of the future begin."""
        return batches.next_number(self._store, self._model)

    def observations(self, since: int) -> ObservationBatch:
        """Facts of the batches from number ``since`` on, at most :data:`MAX_BATCHES_PER_READ` of them."""
        requests: list[RequestFact] = []
        feedback: list[FeedbackFact] = []
        number = since
        while number < since + MAX_BATCHES_PER_READ:
            records = batches.read_batch(self._store, self._model, "facts", number)
            if records is None:
                break
            requests += [RequestFact.from_json(record) for record in records if record["kind"] == "request"]
            feedback += [FeedbackFact.from_json(record) for record in records if record["kind"] == "feedback"]
            number += 1
        return ObservationBatch(requests=tuple(requests), feedback=tuple(feedback), next=number)

    # --- how ---------------------------------------------------------------------------------------------------

    def _state(self) -> ModelState:
        """The state as it is written, with the options of today."""
        state = self._states.read(self._model) or ModelState(model=self._model)
        options = self._options
        return dataclasses.replace(
            state,
            output=options.output,
            retention_s=options.retention_s,
            capture_bytes=options.capture_bytes,
            timeout_s=options.timeout_s,
            champion_retries=options.champion_retries,
        )

    def _move(self, new: ModelState) -> tuple[int, float]:
        """Publish a state and wait for its routes. Its route version, and when the gateway acknowledged it."""
        before = self._states.read(self._model) or ModelState(model=self._model)
        changed = gateway.model_routes(before) != gateway.model_routes(new)
        new = dataclasses.replace(new, route_version=before.route_version + changed)
        return new.route_version, publish(self._states, self._admin, old=before, new=new)

    def _drain(self) -> None:
        """Stop what drains once its requests have ended, or after :data:`DRAIN_TIMEOUT_S`."""
        waiting = self._state().draining
        if not waiting:
            return
        time.sleep(DRAIN_MINIMUM_S)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        for server in waiting:
            name = server.deployment.id
            while (left := self._admin.open_requests(name)) and time.monotonic() < deadline:
                time.sleep(DRAIN_POLL_S)
            if left:
                log.warning("Stopping %s with %s requests open after %.0f s", name, left, DRAIN_TIMEOUT_S)
            self._forget(server)

    def _forget(self, server: Server) -> None:
        with self._states.locked():
            state = self._state()
            if server not in state.draining:
                return
            self._servers.stop(server)
            rest = tuple(item for item in state.draining if item != server)
            self._move(dataclasses.replace(state, draining=rest))
        log.info("Stopped %s", server.deployment.id)

    def _move_port(self, server: Server) -> None:
        """Another process listens on the server's port: give it another one."""
        moved = dataclasses.replace(server, port=free_port())
        with self._states.locked():
            state = self._state()
            new = state.with_servers(lambda item: moved if item == server else item)
            self._move(new)
            self._servers.start(moved)
        log.info("Port %s was taken; %s moved to %s", server.port, server.deployment.id, moved.port)


def _held(state: ModelState, slot: str) -> Server | None:
    return state.champion if Slot(slot) is Slot.CHAMPION else state.canary


def _with(state: ModelState, slot: Slot, server: Server | None) -> ModelState:
    """The state with a slot filled or emptied; a new canary starts without traffic."""
    if slot is Slot.CHAMPION:
        return dataclasses.replace(state, champion=server)
    return dataclasses.replace(state, canary=server, percent=0.0)
