"""From the state files to the running gateway."""

from __future__ import annotations

from collections.abc import Iterable

from genai_operators.exceptions import GatewayUnavailable
from genai_operators.serving import gateway
from genai_operators.serving.admin import Admin
from genai_operators.serving.state import ModelState, StateDirectory, replace_file


def publish(states: StateDirectory, admin: Admin, *, old: ModelState, new: ModelState) -> float:
    """Make one model's new state the truth; return when the gateway acknowledged it (seconds since the epoch).

    Hold the lock. If the gateway does not acknowledge it, the old state is written back: traffic did not move.
    """
    states.write(new)
    try:
        everyone = states.read_all()
        _write_clusters(states, admin, (old, *everyone))
        version = write_routes(states, everyone)
        acknowledged_at = admin.wait_for_routes(version)
        _write_clusters(states, admin, everyone)
    except GatewayUnavailable:
        states.write(old)
        write_files(states)
        raise
    return acknowledged_at


def write_files(states: StateDirectory) -> None:
    """Generate what the gateway reads, from all state files, and wait for nothing: for a gateway that is down."""
    everyone = states.read_all()
    found = gateway.clusters(everyone)
    replace_file(gateway.clusters_path(states.directory), gateway.to_bytes(found))
    write_routes(states, everyone)


def write_routes(states: StateDirectory, everyone: Iterable[ModelState]) -> str:
    """Write the routes; their version."""
    found = gateway.routes(everyone)
    replace_file(gateway.routes_path(states.directory), gateway.to_bytes(found))
    return str(found["version_info"])


def _write_clusters(states: StateDirectory, admin: Admin, everyone: Iterable[ModelState]) -> None:
    found = gateway.clusters(everyone)
    replace_file(gateway.clusters_path(states.directory), gateway.to_bytes(found))
    admin.wait_for_clusters(str(found["version_info"]))
