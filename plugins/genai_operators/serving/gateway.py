"""Envoy's configuration, rendered from the models' states. Pure functions; JSON, which Envoy reads as well as YAML.

The bootstrap names two files that Envoy watches: one ``RouteConfiguration`` for all models (a second one in the file
would be refused) and the clusters, one a server. Each route carries, as metadata under ``genai``, what the access log
must know about the request: variant, deployment, route version and the canary's percent, which is the propensity in
force for it.

The canary's share is a ``runtime_fraction`` on its own route rather than a weighted cluster: so variant and retries
belong to the route, and a line of the log needs no guess. No runtime key is set, so nothing can override the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genai_operators.serving.contract import Slot
from genai_operators.serving.state import ModelState, Server

ROUTES_NAME = "genai"
ENVOY_FOLDER = "envoy"
LIVE_FOLDER = "live"
ACCESS_LOG = "access.jsonl"

LOOPBACK = "127.0.0.1"
FRACTION_DENOMINATOR = 1_000_000
MAX_REQUEST_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 2
# uvicorn closes an idle connection after 5 s; a request sent at that moment would fail, so the gateway closes first.
UPSTREAM_IDLE_TIMEOUT_S = 2
MAX_PARALLEL_REQUESTS = 4096
MODEL_HEADER = "x-genai-model"
VARIANT_HEADER = "x-genai-variant"

_TYPE = "type.googleapis.com/"
_JSON_ANSWER = [
    {"header": {"key": "content-type", "value": "application/json"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
]


def bootstrap_path(directory: Path) -> Path:
    return directory / ENVOY_FOLDER / "bootstrap.json"


def routes_path(directory: Path) -> Path:
    return directory / ENVOY_FOLDER / LIVE_FOLDER / "routes.json"


def clusters_path(directory: Path) -> Path:
    return directory / ENVOY_FOLDER / LIVE_FOLDER / "clusters.json"


def access_log_path(directory: Path) -> Path:
    return directory / "log" / ACCESS_LOG


def to_bytes(value: Any) -> bytes:
    """What is written for Envoy to read."""
    return json.dumps(value, indent=1, sort_keys=True).encode()


# --- bootstrap ---------------------------------------------------------------------------------------------------


def bootstrap(
    directory: Path, *, gateway_port: int, admin_port: int, gateway_address: str = LOOPBACK
) -> dict[str, Any]:
    """The static part: one listener and the admin interface, which stays on loopback wherever users come in."""
    return {
        "node": {"id": "genai-gateway", "cluster": "genai"},
        "admin": {"address": _address(admin_port)},
        "dynamic_resources": {"cds_config": _watched(clusters_path(directory))},
        "static_resources": {"listeners": [_listener(directory, port=gateway_port, address=gateway_address)]},
        "overload_manager": {"resource_monitors": [_connection_limit()]},
    }


def _listener(directory: Path, *, port: int, address: str) -> dict[str, Any]:
    manager = {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "genai",
        "rds": {"route_config_name": ROUTES_NAME, "config_source": _watched(routes_path(directory))},
        "http_filters": [_lua_filter(), _router_filter()],
        "access_log": [_access_log(directory)],
        # Every caller counts as external: its x-request-id is replaced (ids must be unique) and x-envoy-* headers,
        # which could ask for retries, are dropped. An empty list of internal addresses would mean the usual ones.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "skip_xff_append": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "http2_protocol_options": {},
    }
    return {
        "name": "genai",
        "address": _address(port, host=address),
        "per_connection_buffer_limit_bytes": MAX_REQUEST_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _connection_limit() -> dict[str, Any]:
    config = {
        "@type": _TYPE + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": MAX_PARALLEL_REQUESTS,
    }
    return {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": config}


def _lua_filter() -> dict[str, Any]:
    source = Path(__file__).with_name("gateway.lua").read_text(encoding="utf-8")
    config = {
        "@type": _TYPE + "envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": source},
    }
    return {"name": "envoy.filters.http.lua", "typed_config": config}


def _router_filter() -> dict[str, Any]:
    config = {"@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router"}
    return {"name": "envoy.filters.http.router", "typed_config": config}


def _access_log(directory: Path) -> dict[str, Any]:
    line = {
        "id": "%REQ(X-REQUEST-ID)%",
        "at": "%START_TIME(%s.%6f)%",
        "ms": "%DURATION%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "route": "%METADATA(ROUTE:genai)%",
        "seen": "%DYNAMIC_METADATA(genai)%",
    }
    config = {
        "@type": _TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(access_log_path(directory)),
        "log_format": {"json_format": line},
    }
    only_api = {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": "/v1/"}}}}
    return {"name": "envoy.access_loggers.file", "filter": only_api, "typed_config": config}


def _watched(path: Path) -> dict[str, Any]:
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _address(port: int, *, host: str = LOOPBACK) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


# --- routes ------------------------------------------------------------------------------------------------------


def routes(states: Iterable[ModelState]) -> dict[str, Any]:
    """The discovery response with the one ``RouteConfiguration``.

    Its version is a digest of its content, which includes each model's growing route version, so none ever comes back.
    """
    served = [state for state in states if state.champion or state.canary]
    configuration = {
        "@type": _TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES_NAME,
        # The clusters come from another file, which is written first.
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": MAX_REQUEST_BYTES,
        "virtual_hosts": [
            {
                "name": "models",
                "domains": ["*"],
                "routes": [
                    *_fixed_routes(served),
                    *(route for state in served for route in model_routes(state)),
                    _answer(
                        {"prefix": "/v1/"}, status=404, body=_error("no such model is served here: GET /v1/models")
                    ),
                    _answer({"prefix": "/"}, status=404, body=_error("no such path")),
                ],
            }
        ],
    }
    versions = {state.model: state.route_version for state in states}
    return _discovery([configuration], salt=versions)


def _fixed_routes(served: list[ModelState]) -> list[dict[str, Any]]:
    models = {
        "object": "list",
        "data": [{"id": state.model, "object": "model", "owned_by": "genai"} for state in served],
    }
    feedback = _answer({"path": "/v1/feedback"}, status=202, body={"status": "accepted"})
    feedback["match"]["headers"] = [{"name": ":method", "string_match": {"exact": "POST"}}]
    return [
        feedback,
        _answer({"path": "/v1/models"}, status=200, body=models),
        _answer({"path": "/health"}, status=200, body={"status": "ok"}),
    ]


def _answer(match: dict[str, Any], *, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(body)}},
        "response_headers_to_add": _JSON_ANSWER,
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def model_routes(state: ModelState) -> list[dict[str, Any]]:
    """In Envoy's order, first match wins: asked-for variants, the canary's share, the champion."""
    found = []
    for slot in (Slot.CANARY, Slot.CHAMPION):
        if (server := _server(state, slot)) is not None:
            found.append(_route(state, slot, server, header={VARIANT_HEADER: slot.value}))
    if state.canary is not None and state.percent > 0:
        found.append(_route(state, Slot.CANARY, state.canary, percent=state.percent))
    if state.champion is not None:
        found.append(_route(state, Slot.CHAMPION, state.champion))
    return found


def _server(state: ModelState, slot: Slot) -> Server | None:
    return state.champion if slot is Slot.CHAMPION else state.canary


def _route(
    state: ModelState, slot: Slot, server: Server, *, header: dict[str, str] | None = None, percent: float | None = None
) -> dict[str, Any]:
    headers = {MODEL_HEADER: state.model, **(header or {})}
    match: dict[str, Any] = {
        "prefix": "/v1/",
        "headers": [{"name": name, "string_match": {"exact": value}} for name, value in headers.items()],
    }
    if percent is not None:
        numerator = round(percent / 100 * FRACTION_DENOMINATOR)
        match["runtime_fraction"] = {"default_value": {"numerator": numerator, "denominator": "MILLION"}}
    action: dict[str, Any] = {"cluster": server.deployment.id, "timeout": f"{state.timeout_s:.3f}s"}
    if slot is Slot.CHAMPION and state.champion_retries:
        action["retry_policy"] = {"retry_on": "5xx", "num_retries": state.champion_retries}
    return {
        "match": match,
        "route": action,
        "metadata": {
            "filter_metadata": {
                "genai": {
                    "model": state.model,
                    "variant": slot.value,
                    "deployment": server.deployment.id,
                    "route_version": state.route_version,
                    "percent": state.percent,
                    "assigned": header is None,
                },
                "envoy.filters.http.lua": {"capture_bytes": state.capture_bytes},
            }
        },
    }


# --- clusters ----------------------------------------------------------------------------------------------------


def clusters(states: Iterable[ModelState]) -> dict[str, Any]:
    """The discovery response with a cluster for every server that runs, those that drain included."""
    servers = {server.deployment.id: server for state in states for server in state.servers}
    return _discovery([_cluster(server) for _, server in sorted(servers.items())])


def _cluster(server: Server) -> dict[str, Any]:
    name = server.deployment.id
    threshold = {
        "max_connections": MAX_PARALLEL_REQUESTS,
        "max_pending_requests": MAX_PARALLEL_REQUESTS,
        "max_requests": MAX_PARALLEL_REQUESTS,
        # Envoy's default of 3 retries at a time turns a few errors into many once retries are on.
        "max_retries": MAX_PARALLEL_REQUESTS,
    }
    options = {
        "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_TIMEOUT_S}s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "@type": _TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "circuit_breakers": {"thresholds": [threshold]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(server.port)}}]}],
        },
    }


def _discovery(resources: list[dict[str, Any]], *, salt: Any = None) -> dict[str, Any]:
    content = json.dumps([resources, salt], sort_keys=True).encode()
    return {"version_info": hashlib.sha256(content).hexdigest()[:16], "resources": resources}
