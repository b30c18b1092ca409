"""The configuration files of the platform's components: ``airflow.cfg`` and ``supervisord.conf``."""

from __future__ import annotations

import configparser
import io
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from embedded.layout import HOST, ROOT, Layout, write_private
from embedded.processes import MARKER
from genai_operators.exceptions import ConfigurationError

DATABASE_VARIABLE = "PLATFORM_DATABASE_URL"
SQLITE = "SQLite"
ADMIN = "admin"
PASSWORD_BYTES = 12
#: Tasks at once. Two cores carry three; a deferred task holds none.
PARALLELISM = 6
#: How long Airflow waits for SQLite's one writer. Python's default of 5 s is over on busy cores, and a request fails.
SQLITE_PATIENCE_S = 60


def environment(layout: Layout) -> dict[str, str]:
    """What every process of the platform inherits. Secrets are in files, not here.

    Settings of another Airflow would come before ours: ``make up`` would migrate that one's database.
    """
    kept = {k: v for k, v in os.environ.items() if k != DATABASE_VARIABLE and not k.startswith("AIRFLOW__")}
    return {
        **kept,
        MARKER: str(layout.directory),
        "AIRFLOW_HOME": str(layout.airflow_home),
        "GENAI_SCRATCH_ROOT": str(layout.directory / "scratch"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT)]),
        # setproctitle would write over the environment that carries the marker.
        "SPT_NOENV": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
    }


def write_airflow(layout: Layout) -> None:
    """Write ``airflow.cfg`` and the password file, both readable by their owner alone."""
    passwords = layout.airflow_home / "passwords.json"
    write_private(passwords, json.dumps({ADMIN: layout.secret("airflow_password", size=PASSWORD_BYTES)}))
    sections: dict[str, dict[str, str]] = {
        "core": {
            "dags_folder": str(ROOT / "dags"),
            "plugins_folder": str(ROOT / "plugins"),
            "load_examples": "False",
            "executor": "LocalExecutor",
            "parallelism": str(PARALLELISM),
            "max_active_tasks_per_dag": str(PARALLELISM),
            "dags_are_paused_at_creation": "False",
            "fernet_key": _fernet_key(layout),
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": str(passwords),
            "execution_api_server_url": f"{layout.airflow_url}/execution/",
            "lazy_load_plugins": "True",
        },
        "database": {"sql_alchemy_conn": database_url(layout, "airflow")},
        "api": {
            "host": HOST,
            "port": str(layout.ports["airflow"]),
            "base_url": layout.airflow_url,
            "workers": "1",
            "secret_key": layout.secret("api"),
            "expose_config": "False",
        },
        "api_auth": {"jwt_secret": layout.secret("jwt")},
        "scheduler": {"scheduler_idle_sleep_time": "0.3", "scheduler_heartbeat_sec": "2"},
        "dag_processor": {
            "refresh_interval": "10",
            "min_file_process_interval": "15",
            "parsing_processes": "1",
        },
        # A triggerer's first look at a task's state was seen to take 25 s on a loaded machine; 30 s is the default.
        "triggerer": {"job_heartbeat_sec": "2", "on_kill_timeout": "120"},
        "logging": {"base_log_folder": str(layout.airflow_home / "logs"), "logging_level": "INFO"},
        "openlineage": {
            "transport": json.dumps({"type": "file", "log_file_path": str(layout.lineage / "events"), "append": False}),
            "namespace": "genai",
        },
        "usage_data_collection": {"enabled": "False"},
    }
    if (asynchronous := async_database_url(layout)) is not None:
        sections["database"]["sql_alchemy_conn_async"] = asynchronous
    parser = configparser.RawConfigParser()
    parser.read_dict(sections)
    text = io.StringIO()
    parser.write(text)
    write_private(layout.airflow_home / "airflow.cfg", text.getvalue().replace("%", "%%"))


def database_url(layout: Layout, component: str) -> str:
    """SQLite in the platform's directory, or a schema of its own in the PostgreSQL that the variable names."""
    url = os.environ.get(DATABASE_VARIABLE)
    if not url:
        if component == "airflow":
            return f"sqlite:///{layout.airflow_home / 'airflow.db'}?timeout={SQLITE_PATIENCE_S}"
        return f"sqlite:///{layout.directory / 'mlflow.db'}"
    if not url.startswith("postgresql+psycopg://"):
        raise ConfigurationError(f"{DATABASE_VARIABLE} must start with postgresql+psycopg://, or be unset for SQLite")
    separator = "&" if "?" in url else "?"
    return f"{url}{separator}options=-csearch_path%3D{component}"


def keep_database_choice(layout: Layout) -> None:
    """Note where this platform's database is, without the password; it is there for good.

    Airflow and MLflow would begin anew in another database, beside a store whose ledger and releases know the first.

    :raises ConfigurationError: when the variable now says something else than at the first start, or makes no sense.
    """
    database_url(layout, "airflow")  # one that cannot be used is not kept
    record = layout.directory / "database.json"
    chosen = _without_password(os.environ.get(DATABASE_VARIABLE))
    if not record.exists():
        write_private(record, json.dumps({"database": chosen}))
    elif (kept := json.loads(record.read_text())["database"]) != chosen:
        wanted = f"set {DATABASE_VARIABLE} to it" if kept != SQLITE else f"unset {DATABASE_VARIABLE}"
        raise ConfigurationError(
            f"the platform in {layout.directory} has its database in {kept}, "
            f"but {DATABASE_VARIABLE} now says {chosen}; {wanted} to go on with it, "
            "or begin anew after `make clean` or in another --directory"
        )


def _without_password(url: str | None) -> str:
    if not url:
        return SQLITE
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=user + parts.netloc.rpartition("@")[2], query=""))


def async_database_url(layout: Layout) -> str | None:
    """Airflow would derive asyncpg, which does not know ``options``; psycopg serves both styles."""
    url = database_url(layout, "airflow")
    return None if url.startswith("sqlite") else url


def create_schemas() -> None:
    """Airflow and MLflow both keep a table ``alembic_version``, so each gets its own schema."""
    url = os.environ.get(DATABASE_VARIABLE)
    if not url:
        return
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
        for schema in ("airflow", "mlflow"):
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")


def programs(layout: Layout) -> dict[str, list[str]]:
    """Every component that the supervisor keeps alive, by name. Each listens on the loopback address alone."""
    from genai_operators.serving.local import platform_programs

    mlflow = str(Path(sys.executable).parent / "mlflow")
    serving = platform_programs(
        layout.serving, layout.store.as_uri(), layout.ports["gateway"], layout.ports["gateway_admin"]
    )
    return {
        "mlflow": [
            mlflow, "server", "--host", HOST, "--port", str(layout.ports["mlflow"]), "--workers", "1",
            "--artifacts-destination", str(layout.directory / "mlflow-artifacts"),
        ],
        **airflow_programs(layout),
        **serving,
    }  # fmt: skip


def airflow_programs(layout: Layout) -> dict[str, list[str]]:
    """Those of Airflow; they need its database."""
    airflow = str(Path(sys.executable).parent / "airflow")
    return {
        "api-server": [airflow, "api-server", "--host", HOST, "--port", str(layout.ports["airflow"]), "--workers", "1"],
        "scheduler": [sys.executable, "-m", "embedded.scheduler"],
        "dag-processor": [airflow, "dag-processor"],
        "triggerer": [airflow, "triggerer", "--skip-serve-logs"],
    }


def write_supervisor(layout: Layout) -> None:
    """Write ``supervisord.conf``. Model servers come and go as files in the serving directory's ``programs.d``."""
    parser = configparser.RawConfigParser()
    socket = str(layout.supervisor_socket)
    parser.read_dict(
        {
            "supervisord": {
                "logfile": layout.logs / "supervisord.log",
                "logfile_maxbytes": "5MB",
                "logfile_backups": "1",
                "pidfile": layout.directory / "supervisord.pid",
                "childlogdir": layout.logs,
            },
            "unix_http_server": {"file": socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisorctl": {"serverurl": f"unix://{socket}"},
            "include": {"files": layout.serving / "programs.d" / "*.conf"},
        }
    )
    of_airflow = airflow_programs(layout)
    for name, command in programs(layout).items():
        parser[f"program:{name}"] = {
            "autostart": "false" if name in of_airflow else "true",  # `make up` starts them, once there is a database
            "command": " ".join(_quoted(argument) for argument in command),
            "directory": str(ROOT),
            "autorestart": "true",
            "startsecs": "2",
            "startretries": "20",
            "stopwaitsecs": "10",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(layout.logs / f"{name}.log"),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "1",
        }
    # Every user of the machine reads command lines, and the URL may hold a password.
    url = database_url(layout, "mlflow").replace("%", "%%")
    parser["program:mlflow"]["environment"] = f'MLFLOW_BACKEND_STORE_URI="{url}"'
    text = io.StringIO()
    parser.write(text)
    write_private(layout.supervisor_configuration, text.getvalue())


def _quoted(argument: str) -> str:
    # supervisord expands %(name)s and splits like a shell.
    argument = argument.replace("%", "%%")
    return (
        argument if argument.replace("-", "").replace("/", "").isalnum() else "'" + argument.replace("'", "'\\''") + "'"
    )


def _fernet_key(layout: Layout) -> str:
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    return urlsafe_b64encode(sha256(layout.secret("fernet").encode()).digest()).decode()
