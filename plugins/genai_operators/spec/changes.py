"""What differs between two states of a model file, and which stages of the lifecycle feel it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What a changed section makes new at the next run. `data` and `train` change the weights themselves.
EFFECTS: dict[str, str] = {
    "data": "validates, trains and evaluates anew",
    "train": "trains and evaluates anew",
    "evaluate": "evaluates anew",
    "serve": "from the next release on",
    "canary": "from the next release on; a live one keeps its plan",
    "drift": "from the next drift check on",
    "policy": "from the next drift check on",
    "governance": "from the next release on",
    "schedule": "at once",
    "compute": "from the next workload on",
    "recipe": "trains and evaluates anew",
    "refresh": "trains and evaluates anew once there is a champion",
    "suite": "validates anew",
    "prices": "from the next plan on",
    "description": "in the UI only",
    "owner": "in the UI only",
}


@dataclass(frozen=True)
class Change:
    """One field, its dotted path, before and after; ``None`` where it was absent."""

    field: str
    before: Any
    after: Any

    @property
    def effect(self) -> str:
        """When and where the change is felt."""
        return EFFECTS.get(self.field.split(".", 1)[0].split("[", 1)[0], "from the next run on")

    def __str__(self) -> str:
        return f"{self.field}: {_show(self.before)} -> {_show(self.after)}"


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The fields that differ between two specs as ``ModelSpec.to_json`` gives them, in the order of the file."""
    old, new = _flatten(before), _flatten(after)
    fields = [*new, *(field for field in old if field not in new)]
    return [
        Change(field=field, before=old.get(field), after=new.get(field))
        for field in fields
        if old.get(field) != new.get(field)
    ]


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        parts = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        parts = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    else:
        return {path: value}
    return {field: leaf for name, item in parts for field, leaf in _flatten(item, name).items()}


def _show(value: Any) -> str:
    return "-" if value is None else str(value)
