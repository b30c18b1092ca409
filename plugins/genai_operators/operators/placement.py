"""From what a DAG author writes (``compute``, ``hardware``, ``max_cost``) to what a waiting task has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_operators.compute.resources import GIB, Resources
from genai_operators.exceptions import BudgetExceeded, ConfigurationError

HardwareLike = str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
#: What a workload asks for when nobody says: validation and drift, then those with torch.
LIGHT = Resources(cpu=2.0, memory_bytes=4 * GIB)
HEAVY = Resources(cpu=4.0, memory_bytes=16 * GIB)
#: A cluster may have to make a machine first, and pull gigabytes of image.
STARTING_S = 20 * 60.0
#: How a rendered template says that there is nothing.
NOTHING = (None, "", "None", "none")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a workload runs, what it may ask for, the preferred first, and what it may cost. Plain JSON."""

    backend: Mapping[str, Any]
    ladder: Sequence[Mapping[str, Any]] = ()
    budget: Mapping[str, Any] | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs where this host's files cannot be read."""
        return str(self.backend["target"]) != "local"

    def limits(self) -> dict[str, Any]:
        """Of the phases, where the author sets none; see :class:`~genai_operators.compute.standing.Limits`."""
        return {"starting_s": STARTING_S} if self.is_elsewhere else {}

    def arguments(self) -> dict[str, Any]:
        """Of a :class:`~genai_operators.compute.watch.WorkloadSubject`."""
        return {"backend": dict(self.backend), "ladder": list(self.ladder), "budget": self.budget}


def place(
    *,
    compute: str | Mapping[str, Any],
    hardware: HardwareLike,
    max_cost: float | str | None,
    kind: str,
    environment: str,
) -> Placement:
    """Resolve connections and the plan's decision; on the worker, once templates are rendered.

    :param kind: of the workload. :param environment: ``airflow`` for light ones, ``workload`` for those with torch.
    :raises ConfigurationError: a connection lacks something, or ``hardware`` or ``max_cost`` are not what they must be.
    :raises BudgetExceeded: ``max_cost`` leaves nothing.
    """
    description = {"target": compute} if isinstance(compute, str) else dict(compute)
    if description.get("target") == "local":
        return Placement(backend=_local(description, environment))
    ladder = _ladder(hardware, kind) or [LIGHT if environment == "airflow" else HEAVY]
    return Placement(
        backend=_elsewhere(description),
        ladder=[rung.to_json() for rung in ladder],
        budget=_budget(max_cost, currency=next((rung.currency for rung in ladder if rung.currency), "")),
    )


def _local(description: dict[str, Any], environment: str) -> dict[str, Any]:
    if environment == "workload" and "python" not in description:
        from genai_operators.hooks import settings

        description["python"] = settings.local_compute().workload_python
    return description


def _elsewhere(description: dict[str, Any]) -> dict[str, Any]:
    """The connection's settings; what the author says goes before them."""
    if description.get("target") != "kubernetes":
        return description
    from genai_operators.hooks import settings

    connection = str(description.get("connection") or settings.KUBERNETES_CONNECTION)
    return {"prices": gpu_prices(settings.project_root()), **settings.kubernetes_compute(connection), **description}


def gpu_prices(root: Path) -> dict[str, dict[str, float]]:
    """What one GPU costs for an hour, by type and purchase, as of now: it stands in the claim, so that a run's cost
    is counted at the price at which it began. Empty where the project has no price file.

    :raises ConfigurationError: the price file is wrong.
    """
    from genai_operators.decisions.gpu_prices import Purchase
    from genai_operators.operators.gpu_choice import PRICES, project_prices

    if not (root / PRICES).exists():
        return {}
    return {
        name: {purchase.value: each for purchase in Purchase if (each := price.of(purchase)) is not None}
        for name, price in project_prices(root).gpus.items()
    }


def _ladder(hardware: HardwareLike, kind: str) -> list[Resources]:
    if hardware is None or hardware in NOTHING:
        return []
    if isinstance(hardware, str):
        from genai_operators.operators.ladders import read_ladder

        if "://" not in hardware:
            raise ConfigurationError(
                f"hardware {hardware!r} is neither a mapping nor a list nor the URI that the plan returned; in a "
                "template, render_template_as_native_obj keeps a mapping what it is"
            )
        return read_ladder(hardware, kind)
    rungs = [hardware] if isinstance(hardware, Mapping) else list(hardware)
    return [Resources.from_json(rung) for rung in rungs]


def _budget(max_cost: float | str | None, *, currency: str) -> dict[str, Any] | None:
    if max_cost is None or max_cost in NOTHING:
        return None
    try:
        limit = float(max_cost)
    except ValueError as error:
        raise ConfigurationError(f"max_cost is {max_cost!r}; a number is needed, such as 40") from error
    if not limit > 0:
        raise BudgetExceeded(f"max_cost leaves {limit:.2f} {currency}: nothing may be spent here. Raise it.")
    return {"max_cost": limit, "currency": currency}
