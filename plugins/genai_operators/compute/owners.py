"""Which task runs want a workload. The last to leave cancels it; who left without a word is found by the index.

``<workload>/owners/<key>.json`` says who wants it; ``active/<kind>/<fingerprint>/<key>.json`` is the index over all
workloads, so that nobody has to list the whole store. An index entry is written before its owner and removed once the
owner left *and* nothing of the workload can still run: it may point at nothing, but nothing that runs is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genai_operators.store import Store, canonical_json, sha256_bytes

ACTIVE_PREFIX = "active"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A task instance, over all its tries. ``map_index`` is -1 where the task is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def key(self) -> str:
        """Names its records: run ids hold characters that paths should not."""
        return sha256_bytes(canonical_json(asdict(self)))[:20]

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id} / {self.run_id} / {self.task_id}{mapped}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Owner:
        """:raises KeyError: when the record is not one of ours."""
        return cls(
            dag_id=record["dag_id"],
            run_id=record["run_id"],
            task_id=record["task_id"],
            map_index=int(record["map_index"]),
        )


def enter(store: Store, directory: str, owner: Owner) -> None:
    """Write down that ``owner`` wants the workload; again, after a retry, changes nothing."""
    record = {"directory": directory, "owner": owner.to_json()}
    store.put_json(_index_path(directory, owner), record)
    store.create_json(_owner_path(directory, owner), record)


def is_owner(store: Store, directory: str, owner: Owner) -> bool:
    """Whether it still wants the workload."""
    return store.exists(_owner_path(directory, owner))


def leave(store: Store, directory: str, owner: Owner) -> bool:
    """Remove ``owner``; its index entry stays. ``True`` if nobody is left who wants the workload."""
    store.delete(_owner_path(directory, owner))
    return not store.list_names(f"{directory}/owners")


def forget(store: Store, directory: str, owner: Owner) -> None:
    """Remove the index entry of an owner that left."""
    store.delete(_index_path(directory, owner))


def active(store: Store) -> Iterator[tuple[str, Owner]]:
    """Every (workload directory, owner) in the index."""
    for info in store.list(ACTIVE_PREFIX):
        record = store.find_json(info.path)
        if record is not None:
            yield record["directory"], Owner.from_json(record["owner"])


def _owner_path(directory: str, owner: Owner) -> str:
    return f"{directory}/owners/{owner.key}.json"


def _index_path(directory: str, owner: Owner) -> str:
    return f"{ACTIVE_PREFIX}/{directory.partition('/')[2]}/{owner.key}.json"
