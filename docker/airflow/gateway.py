"""The gateway of a container host: Envoy, the ingest of its access log, and the model servers, under one supervisord.

The scheduler and the triggerer share this container's network and processes (``network_mode`` and ``pid`` in
``docker/compose.yaml``): together they are the one host that ``local`` compute and serving mean. The supervisor's
socket, the servers' files and Envoy's configuration lie in a volume that they share.
"""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
from pathlib import Path

from genai_operators.serving.local import platform_programs

DIRECTORY = Path("/var/lib/genai/gateway")
SOCKET = DIRECTORY / "supervisor.sock"
GATEWAY_PORT = 8081
ADMIN_PORT = 9901


def configuration(directory: Path, programs: dict[str, list[str]]) -> configparser.RawConfigParser:
    """``supervisord.conf``: what runs always, and the folder where the servers come and go."""
    parser = configparser.RawConfigParser()
    parser.read_dict(
        {
            # Its own log to the container's; no pid file on a read-only root.
            "supervisord": {"nodaemon": "true", "logfile": "/dev/null", "pidfile": str(directory / "supervisord.pid")},
            "unix_http_server": {"file": str(directory / SOCKET.name), "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "include": {"files": str(directory / "programs.d" / "*.conf")},
        }
    )
    for name, command in programs.items():
        parser[f"program:{name}"] = {
            "command": shlex.join(command).replace("%", "%%"),
            "autorestart": "true",
            "startsecs": "2",
            "startretries": "20",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": "/dev/fd/1",
            "stdout_logfile_maxbytes": "0",
        }
    return parser


def main() -> None:
    """Write the configuration and become the supervisor."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    # Every address of this container: what of it the host publishes, the compose file says.
    programs = platform_programs(
        DIRECTORY,
        os.environ["GENAI_STORE_URI"],
        GATEWAY_PORT,
        ADMIN_PORT,
        gateway_address="0.0.0.0",  # noqa: S104
    )
    path = DIRECTORY / "supervisord.conf"
    with path.open("w", encoding="utf-8") as file:
        configuration(DIRECTORY, programs).write(file)
    supervisord = shutil.which("supervisord") or "supervisord"
    os.execv(supervisord, [supervisord, "--configuration", str(path)])  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
