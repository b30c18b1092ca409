"""The price list as data: checked, dated, in one named currency, and overridden field by field. Reads no file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any

from genai_operators.decisions.gpu_catalogue import gpu_named
from genai_operators.exceptions import ConfigurationError

_FIELDS = {"date", "currency", "source", "gpus"}
_GPU_FIELDS = {"on_demand", "spot", "interruptions_per_hour", "source"}


class Purchase(StrEnum):
    """How a machine is rented. ``spot`` is cheaper and can be taken away."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"


@dataclass(frozen=True, kw_only=True)
class Price:
    """Of one GPU for one hour, in the list's currency; None where it is not offered.

    :param interruptions_per_hour: expected, of a spot machine.
    """

    on_demand: float | None = None
    spot: float | None = None
    interruptions_per_hour: float = 0.05

    def of(self, purchase: Purchase) -> float | None:
        """Per GPU and hour."""
        return self.spot if purchase is Purchase.SPOT else self.on_demand


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """Prices of one day."""

    at: date
    currency: str
    gpus: Mapping[str, Price]

    def age_days(self, today: date) -> int:
        """How old the list is."""
        return (today - self.at).days


def price_list(record: Mapping[str, Any], *overrides: Mapping[str, Any]) -> PriceList:
    """Check a parsed price file; later files override single fields of earlier ones.

    :raises ConfigurationError: a negative price, an unknown GPU or field, two currencies; the message names it.
    """
    merged: dict[str, Any] = {**record, "gpus": dict(_mapping(record.get("gpus"), "gpus"))}
    _require_known(record, _FIELDS, "price file")
    for other in overrides:
        _require_known(other, _FIELDS, "price file")
        if "currency" in other and other["currency"] != merged.get("currency"):
            raise ConfigurationError(
                f"price file: currency {other['currency']!r} over {merged.get('currency')!r}; convert one of them"
            )
        for name, fields in _mapping(other.get("gpus"), "gpus").items():
            merged["gpus"][name] = {**merged["gpus"].get(name, {}), **_mapping(fields, f"gpus.{name}")}
        merged["date"] = other.get("date", merged.get("date"))
    currency = merged.get("currency")
    if not isinstance(currency, str) or len(currency) != 3 or not currency.isupper():
        raise ConfigurationError(f"price file: currency is {currency!r}; three capital letters are needed, like USD")
    return PriceList(
        at=_date(merged.get("date")),
        currency=currency,
        gpus={name: _price(name, fields) for name, fields in merged["gpus"].items()},
    )


def _price(name: str, fields: Any) -> Price:
    gpu_named(name)
    fields = _mapping(fields, f"gpus.{name}")
    _require_known(fields, _GPU_FIELDS, f"price file: gpus.{name}")
    on_demand, spot = (_amount(fields.get(key), f"gpus.{name}.{key}") for key in ("on_demand", "spot"))
    if on_demand is None and spot is None:
        raise ConfigurationError(f"price file: gpus.{name} has neither on_demand nor spot")
    rate = _amount(fields.get("interruptions_per_hour"), f"gpus.{name}.interruptions_per_hour")
    price = Price(on_demand=on_demand, spot=spot)
    return price if rate is None else replace(price, interruptions_per_hour=rate)


def _amount(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"price file: {where} is {value!r}; a number of at least 0 is needed")
    return float(value)


def _date(value: Any) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ConfigurationError(f"price file: date is {value!r}; write the day of the prices as 2026-03-31") from None


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"price file: {where} is {value!r}; a mapping is needed")
    return value


def _require_known(record: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(record) - known)
    if unknown:
        raise ConfigurationError(f"{where}: {', '.join(map(str, unknown))} unknown; known: {', '.join(sorted(known))}")
