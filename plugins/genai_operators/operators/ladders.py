"""What each workload of a model asks a cluster for: decided once by the plan, stored, and handed on by URI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from genai_operators.compute.escalation import Ask
from genai_operators.compute.resources import GIB, Resources
from genai_operators.exceptions import ConfigurationError
from genai_operators.store import Store, canonical_json, locate, sha256_bytes

if TYPE_CHECKING:
    from genai_operators.decisions.gpu_prices import PriceList
    from genai_operators.spec.compute import Compute

LADDERS_VERSION = 1
DIGEST_LENGTH = 16
#: A training machine without GPUs, and with them, where neither the model file nor the plan says more.
TRAINING_CPU, TRAINING_MEMORY = 4.0, 16 * GIB
CPU_PER_GPU, MEMORY_PER_GPU, SHARED_PER_GPU = 4.0, 24 * GIB, 1 * GIB


@dataclass(frozen=True)
class Ladders:
    """By workload kind, the preferred rung first. ``notes`` are for people."""

    by_kind: Mapping[str, Sequence[Resources]]
    notes: Sequence[str] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        """For the log and for the plan's page."""
        lines = []
        for kind, ladder in self.by_kind.items():
            lines.append(f"{kind} asks the cluster for " + ", else ".join(Ask(rung).describe() for rung in ladder))
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """What is stored."""
        ladders = {kind: [rung.to_json() for rung in ladder] for kind, ladder in self.by_kind.items()}
        return {"version": LADDERS_VERSION, "ladders": ladders}

    def save(self, store: Store, model: str) -> str:
        """Keep it, once for the same content; its URI, which stands for it in XCom."""
        record = self.to_json()
        path = f"plans/{model}/hardware-{sha256_bytes(canonical_json(record))[:DIGEST_LENGTH]}.json"
        store.create_json(path, record)
        return store.uri_of(path)


def read_ladder(uri: str, kind: str) -> list[Resources]:
    """What workloads of ``kind`` ask for; nothing in particular where the plan says nothing of them.

    :raises ConfigurationError: the object is not what :meth:`Ladders.save` wrote.
    """
    store, path = locate(uri)
    record = store.get_json(path)
    if not isinstance(record, Mapping) or record.get("version") != LADDERS_VERSION:
        raise ConfigurationError(f"{uri} holds no hardware plan of version {LADDERS_VERSION}; run the plan task again")
    return [Resources.from_json(rung) for rung in record["ladders"].get(kind, [])]


def ladders_of(training: Sequence[Resources], *, compute: Compute, notes: Sequence[str] = ()) -> Ladders:
    """The training as given, with what the model file overrides; an evaluation takes one GPU of the same kind."""
    ladder = [sized(rung, compute) for rung in training]
    return Ladders({"fine_tune": ladder, "evaluate": for_evaluation(ladder)}, notes)


def sized(rung: Resources, compute: Compute) -> Resources:
    """Cores and memory as the model file says, where it says."""
    return replace(
        rung,
        cpu=rung.cpu if compute.cpu is None else compute.cpu,
        memory_bytes=rung.memory_bytes if compute.memory is None else compute.memory,
    )


def for_evaluation(training: Sequence[Resources]) -> list[Resources]:
    """One machine with one GPU of each kind that the training may take, in the same order."""
    rungs: list[Resources] = []
    for rung in training:
        devices = max(1, rung.gpu_count)
        price = None if rung.price_per_hour is None else rung.price_per_hour / (devices * rung.nodes)
        one = replace(
            rung,
            gpu_count=min(1, rung.gpu_count),
            gpu_memory_bytes=0,  # of the training: answering needs less
            nodes=1,
            cpu=max(2.0, rung.cpu / devices),
            memory_bytes=max(8 * GIB, rung.memory_bytes // devices),
            shared_memory_bytes=rung.shared_memory_bytes // devices,
            micro_batch=None,
            price_per_hour=price,
        )
        if one not in rungs:
            rungs.append(one)
    return rungs


def without_gpus(compute: Compute) -> list[Resources]:
    """The one rung of a training on CPUs."""
    return [Resources(cpu=TRAINING_CPU, memory_bytes=TRAINING_MEMORY, nodes=compute.nodes)]


def of_type(compute: Compute, prices: PriceList) -> list[Resources]:
    """GPUs by name, as the model file has them: spot machines first where it prefers those.

    :raises ConfigurationError: there is a cost limit, but the price list has no such GPU.
    """
    from genai_operators.decisions.gpu_prices import Purchase
    from genai_operators.spec.compute import Spot

    name, count = compute.gpu.type.value, compute.gpu.count or 1
    purchases = {
        Spot.NEVER: [Purchase.ON_DEMAND],
        Spot.PREFERRED: [Purchase.SPOT, Purchase.ON_DEMAND],
        Spot.ONLY: [Purchase.SPOT],
    }
    rungs = []
    for purchase in purchases[compute.spot]:
        listed = prices.gpus.get(name)
        price = None if listed is None else listed.of(purchase)
        if price is None and compute.max_cost is not None:
            raise ConfigurationError(
                f"compute.max_cost is {compute.max_cost:g}, but the price list has no {purchase} price of {name}: "
                "nothing could be held to it. Add the price, or remove max_cost"
            )
        rungs.append(
            Resources(
                gpu=name,
                gpu_count=count,
                nodes=compute.nodes,
                spot=purchase is Purchase.SPOT,
                cpu=CPU_PER_GPU * count,
                memory_bytes=MEMORY_PER_GPU * count,
                shared_memory_bytes=SHARED_PER_GPU * count,
                price_per_hour=None if price is None else price * count * compute.nodes,
                currency=prices.currency,
            )
        )
    return rungs
