"""What every request passes before it is handled: counters, slowness, injected errors, tokens and access rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import Kind


@dataclass
class Rule:
    """Which requests something happens to; empty means any."""

    verb: str = ""
    resource: str = ""
    namespace: str = ""
    user: str = ""
    #: How many requests it still applies to; None means all until removed.
    remaining: int | None = None
    #: Status code of an injected error; unused by other rules.
    code: int = 0
    retry_after_s: int = 1

    def matches(self, *, verb: str, resource: str, namespace: str = "", user: str = "") -> bool:
        """Whether the rule is about such a request."""
        return (
            self.verb in ("", "*", verb)
            and self.resource in ("", "*", resource)
            and self.namespace in ("", "*", namespace)
            and self.user in ("", "*", user)
        )

    def spend(self) -> bool:
        """Use it once; False when it was used up."""
        if self.remaining is None:
            return True
        self.remaining -= 1
        return self.remaining >= 0


@dataclass(frozen=True)
class Token:
    """A bearer token."""

    user: str
    expires: float | None = None


@dataclass
class Gate:
    """State of the front door; faults change it."""

    tokens: dict[str, Token]
    latency_s: float = 0.0
    injected: list[Rule] = field(default_factory=list)
    denied: list[Rule] = field(default_factory=list)
    lost_answers: list[Rule] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)

    def authenticate(self, headers: Mapping[str, str]) -> str:
        """The user behind the bearer token. Raises 401."""
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        token = self.tokens.get(secret.strip()) if scheme.lower() == "bearer" else None
        if token is None or (token.expires is not None and time.time() > token.expires):
            raise errors.unauthorized()
        return token.user

    def refuse_if_injected(self, verb: str, resource: str, namespace: str) -> None:
        """Raise the error that a fault asked for. 429 comes with ``Retry-After``."""
        for rule in self.injected:
            if rule.matches(verb=verb, resource=resource, namespace=namespace) and rule.spend():
                raise (
                    errors.too_many_requests(rule.retry_after_s) if rule.code == 429 else errors.server_error(rule.code)
                )

    def allowed(self, *, user: str, verb: str, resource: str, namespace: str) -> bool:
        """Whether no rule denies it."""
        return not any(
            rule.matches(verb=verb, resource=resource, namespace=namespace, user=user) for rule in self.denied
        )

    def authorize(self, *, user: str, verb: str, kind: Kind, subresource: str, namespace: str, name: str) -> None:
        """Raise 403 when a rule denies it."""
        plural = kind.plural + (f"/{subresource}" if subresource else "")
        if self.allowed(user=user, verb=verb, resource=plural, namespace=namespace):
            return
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        why = f'User "{user}" cannot {verb} resource "{plural}" in API group "{kind.group}"{where}'
        raise errors.forbidden(kind, name, why)

    def loses_answer(self, verb: str, resource: str) -> bool:
        """Whether the answer to this request is to be lost after it was carried out."""
        return any(rule.matches(verb=verb, resource=resource) and rule.spend() for rule in self.lost_answers)
