"""What a container's process gets: variables by value and by reference, volumes as folders, the image's paths."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.container import CLUSTER_MARKER, POD_MARKER
from tests.fakes.kubernetes.kinds import CONFIG_MAPS, SECRETS, Kind, Object
from tests.fakes.kubernetes.quantities import quantity
from tests.fakes.kubernetes.settings import Image
from tests.fakes.kubernetes.storage import Store

_REFERENCE = re.compile(r"\$(\$|\((?P<name>[-._A-Za-z][-._A-Za-z0-9]*)\))")
#: Limits of a termination message, as the kubelet cuts one that it takes from the log.
LONGEST_MESSAGE, MESSAGE_LINES = 2048, 80
_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


class ConfigError(Exception):
    """A reference that leads nowhere: ``CreateContainerConfigError``."""


@dataclass(frozen=True)
class Folders:
    """A pod's folders on this machine."""

    root: Path
    volumes: Mapping[str, Path]

    @property
    def home(self) -> Path:
        """Working directory, when the container names none."""
        return self.root / "rootfs"


def prepare_folders(store: Store, pod: Object, *, root: Path, shared: Path) -> Folders:
    """Make every volume a folder. Claims live in ``shared``. Raises ConfigError for a missing Secret or ConfigMap."""
    volumes: dict[str, Path] = {}
    (root / "rootfs").mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    for volume in pod["spec"].get("volumes") or []:
        volumes[volume["name"]] = _volume(store, pod, volume, root, shared)
    return Folders(root, volumes)


def _volume(store: Store, pod: Object, volume: Mapping[str, Any], root: Path, shared: Path) -> Path:
    namespace = pod["metadata"]["namespace"]
    folder: Path = root / "volumes" / volume["name"]
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "persistentVolumeClaim" in volume:
        folder = shared / namespace / volume["persistentVolumeClaim"]["claimName"]
    folder.mkdir(parents=True, exist_ok=True)
    for source, kind, key in (("secret", SECRETS, "secretName"), ("configMap", CONFIG_MAPS, "name")):
        if source in volume:
            for name, raw in _data(store, kind, namespace, volume[source][key]).items():
                (folder / name).write_bytes(raw)
    return folder


def _data(store: Store, kind: Kind, namespace: str, name: str) -> dict[str, bytes]:
    found = store.find(kind, namespace, name)
    if found is None:
        raise ConfigError(f'{kind.singular} "{name}" not found')
    if kind is SECRETS:
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    return {key: value.encode() for key, value in (found.get("data") or {}).items()}


class Rewriter:
    """Turns paths inside the container into folders of this machine, and pod host names into loopback."""

    def __init__(self, pod: Object, container: Mapping[str, Any], folders: Folders, keep: Sequence[str]) -> None:
        mounts = []
        for mount in container.get("volumeMounts") or []:
            folder = folders.volumes[mount["name"]] / mount.get("subPath", "")
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not folder.exists():
                folder.mkdir()
            mounts.append((mount["mountPath"].rstrip("/"), str(folder).rstrip("/")))
        mounts.append((container["terminationMessagePath"], str(folders.root / container["name"])))
        self._mounts = sorted(mounts, key=lambda pair: -len(pair[0]))
        self._keep = tuple(keep)
        subdomain = pod["spec"].get("subdomain")
        self._hosts = re.compile(rf"[a-z0-9-]+\.{re.escape(subdomain)}(\.[a-z0-9.-]+)?") if subdomain else None

    def __call__(self, text: str) -> str:
        """Rewrite a value that is, or holds as a word, a path below a mount."""
        words = re.split(r"(\s+)", text)
        text = "".join(self._word(word) for word in words)
        return self._hosts.sub("127.0.0.1", text) if self._hosts else text

    def _word(self, word: str) -> str:
        head, equals, path = word.partition("=") if not word.startswith("/") else ("", "", word)
        if equals == "" and not word.startswith("/"):
            return word
        if path.startswith(self._keep) and self._keep:
            return word
        for mount, folder in self._mounts:
            if path == mount or path.startswith(mount + "/"):
                return f"{head}{equals}{folder}{path[len(mount) :]}"
        return word


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)`` by value, ``$$`` by ``$``; unknown names stay as they are."""

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(value, text)


def resolve_variables(store: Store, pod: Object, container: Mapping[str, Any]) -> dict[str, str]:
    """``envFrom`` and ``env``, in order, references expanded. Raises ConfigError."""
    namespace = pod["metadata"]["namespace"]
    variables: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for field, kind in (("secretRef", SECRETS), ("configMapRef", CONFIG_MAPS)):
            if field in source:
                data = _optional(store, kind, namespace, source[field])
                prefix = source.get("prefix", "")
                variables |= {prefix + name: raw.decode() for name, raw in data.items()}
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            found = _value_from(store, pod, container, entry["valueFrom"])
            if found is not None:
                variables[entry["name"]] = found
        else:
            variables[entry["name"]] = expand(entry.get("value") or "", variables)
    return variables


def _optional(store: Store, kind: Kind, namespace: str, reference: Mapping[str, Any]) -> dict[str, bytes]:
    try:
        return _data(store, kind, namespace, reference["name"])
    except ConfigError:
        if reference.get("optional"):
            return {}
        raise


def _value_from(store: Store, pod: Object, container: Mapping[str, Any], source: Mapping[str, Any]) -> str | None:
    for field, kind in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
        if field in source:
            reference = source[field]
            data = _optional(store, kind, pod["metadata"]["namespace"], reference)
            if reference["key"] in data:
                return data[reference["key"]].decode()
            if reference.get("optional"):
                return None
            place = f"{pod['metadata']['namespace']}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {kind.name} {place}")
    if "resourceFieldRef" in source:
        return _resource_field(container, source["resourceFieldRef"])
    return _field(pod, source["fieldRef"]["fieldPath"])


def _resource_field(container: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    group, _, name = reference["resource"].partition(".")
    amount = quantity(((container.get("resources") or {}).get(group) or {}).get(name, "0"))
    divisor = quantity(reference.get("divisor") or "1") or quantity("1")
    return str(-int(-amount // divisor))


def _field(pod: Object, path: str) -> str:
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    found: Any = pod
    for step in path.split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    return str(found)


def termination_message(container: Mapping[str, Any], code: int, *, log: Path, folder: Path) -> str:
    """What the container left as its last words: a file, or its log's last 80 lines when it failed (2 kB)."""
    written: Path = folder / container["name"]
    if written.is_file() and (text := written.read_text(errors="replace")[:LONGEST_MESSAGE]):
        return text
    if code == 0 or container["terminationMessagePolicy"] != "FallbackToLogsOnError" or not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-MESSAGE_LINES:]
    plain = "".join(line.split(" ", 1)[1] + "\n" for line in lines)
    return plain[-LONGEST_MESSAGE:]


def process_environment(
    pod: Object, variables: Mapping[str, str], *, image: Image, folders: Folders, rewrite: Rewriter, cluster: str
) -> dict[str, str]:
    """The whole environment; nothing of the server's own gets in."""
    base = {
        "PATH": os.pathsep.join((*image.path, *_SYSTEM_PATH)),
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "HOME": str(folders.home),
        "TMPDIR": str(folders.root / "tmp"),
        "LANG": "C.UTF-8",
        **({"PYTHONPATH": os.pathsep.join(image.pythonpath)} if image.pythonpath else {}),
        **image.environment,
    }
    own = {name: rewrite(value) for name, value in variables.items()}
    return {**base, **own, POD_MARKER: pod["metadata"]["uid"], CLUSTER_MARKER: cluster}
