"""``pods/log``: tail, since, previous, timestamps, follow."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import PODS, Object
from tests.fakes.kubernetes.pod_run import PodRun
from tests.fakes.kubernetes.storage import Store
from tests.fakes.kubernetes.web import Reply, Request

FOLLOW_S = 0.1


async def serve(store: Store, pod: Object, run: PodRun | None, request: Request, reply: Reply) -> None:
    """Answer; raises 400 while there is nothing to read."""
    container = _container(pod, request.query.get("container", ""))
    path = _path(pod, container, run, previous=request.flag("previous"))
    lines = _chosen(path, request)
    if not request.flag("follow"):
        reply.send(200, b"".join(lines)[: int(request.query.get("limitBytes") or 1 << 40)])
        return
    reply.start("text/plain")
    reply.write(b"".join(lines))
    await _follow(store, pod, path, request, reply)
    reply.end()


def _container(pod: Object, wanted: str) -> str:
    names = [one["name"] for one in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]]
    if wanted and wanted not in names:
        raise errors.bad_request(f"container {wanted} is not valid for pod {pod['metadata']['name']}")
    return wanted or str(pod["spec"]["containers"][0]["name"])


def _path(pod: Object, container: str, run: PodRun | None, *, previous: bool) -> Path:
    name = pod["metadata"]["name"]
    statuses = (pod["status"].get("containerStatuses") or []) + (pod["status"].get("initContainerStatuses") or [])
    entry = next((one for one in statuses if one["name"] == container), None)
    if previous and (entry is None or not entry["restartCount"]):
        message = f'previous terminated container "{container}" in pod "{name}" not found'
        raise errors.bad_request(message)
    if run is None or entry is None or ("waiting" in entry["state"] and not entry["restartCount"]):
        reason = entry["state"]["waiting"]["reason"] if entry and "waiting" in entry["state"] else "ContainerCreating"
        failed = {
            "ErrImagePull": "trying and failing to pull image",
            "ImagePullBackOff": "trying and failing to pull image",
        }.get(reason, f"waiting to start: {reason}")
        raise errors.bad_request(f'container "{container}" in pod "{name}" is {failed}')
    return run.log_path(container, previous=previous)


def _chosen(path: Path, request: Request) -> list[bytes]:
    query = request.query
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    since = _since(query.get("sinceTime", ""), query.get("sinceSeconds", ""))
    if since:
        lines = [line for line in lines if _stamp(line) >= since]
    if query.get("tailLines"):
        count = int(query["tailLines"])
        lines = lines[-count:] if count else []
    return lines if request.flag("timestamps") else [line.split(b" ", 1)[1] for line in lines]


def _since(moment: str, seconds: str) -> str:
    """As comparable text, in nanoseconds."""
    if moment:
        whole, _, fraction = moment.rstrip("Z").split("+")[0].partition(".")
        return f"{whole}.{fraction:0<9}"
    if not seconds:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - int(seconds))) + ".000000000"


def _stamp(line: bytes) -> str:
    return line.split(b" ", 1)[0].rstrip(b"Z").decode()


async def _follow(store: Store, pod: Object, path: Path, request: Request, reply: Reply) -> None:
    offset = path.stat().st_size if path.exists() else 0
    while not reply.gone:
        present = store.find(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        ended = present is None or present["status"]["phase"] in ("Succeeded", "Failed")
        if path.exists() and path.stat().st_size > offset:
            with path.open("rb") as log:
                log.seek(offset)
                lines = log.read().splitlines(keepends=True)
            offset += sum(len(line) for line in lines)
            plain = lines if request.flag("timestamps") else [line.split(b" ", 1)[1] for line in lines]
            reply.write(b"".join(plain))
        elif ended:
            return
        else:
            await asyncio.sleep(FOLLOW_S)
