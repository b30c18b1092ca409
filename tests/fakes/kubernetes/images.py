"""The registry: which images exist, and what pulling one that does not exist says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from tests.fakes.kubernetes.settings import Image

_REFERENCE = re.compile(r"^[a-z0-9][a-z0-9._:/-]*(@sha256:[0-9a-f]{64})?$|^[a-z0-9][a-z0-9._:/-]*:[\w.-]+$")


class PullError(Exception):
    """The image cannot be pulled; ``reason`` is that of the waiting container."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Images:
    """Known images, and those that are refused for now."""

    def __init__(self, known: Mapping[str, Image]) -> None:
        self._known = dict(known)
        #: Image, or its name without tag and digest -> what the registry says.
        self.refused: dict[str, str] = {}

    def pull(self, reference: str) -> Image:
        """What the image stands for. Raises PullError."""
        if not _REFERENCE.match(reference):
            parse = f'couldn\'t parse image name "{reference}": invalid reference format'
            message = f'Failed to apply default image tag "{reference}": {parse}'
            raise PullError("InvalidImageName", message)
        name = repository(reference)
        refusal = self.refused.get(reference) or self.refused.get(name)
        found = self._known.get(reference) or self._known.get(name) or self._known.get("*")
        if refusal or found is None:
            said = refusal or f'failed to resolve reference "{reference}": {reference}: not found'
            message = f'failed to pull and unpack image "{reference}": {said}'
            raise PullError("ErrImagePull", f"rpc error: code = NotFound desc = {message}")
        return found

    def add(self, reference: str, image: Image) -> None:
        """Push an image."""
        self._known[reference] = image


def repository(reference: str) -> str:
    """``registry/name`` of ``registry/name:tag@digest``."""
    name = reference.split("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.split(":")[0]


def image_id(reference: str) -> str:
    """``registry/name@sha256:...``, as a container's status reports it."""
    if "@" in reference:
        return f"{repository(reference)}@{reference.split('@')[1]}"
    return f"{repository(reference)}@sha256:{hashlib.sha256(reference.encode()).hexdigest()}"
