"""Reads ``include/prices.yaml`` and what overrides it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genai_operators.exceptions import ConfigurationError

if TYPE_CHECKING:
    from genai_operators.decisions.gpu_prices import PriceList


def read_prices(path: Path, *overrides: Path) -> PriceList:
    """Prices of ``path``; each later file overrides single fields.

    :raises ConfigurationError: a file is missing, is no YAML, or says what cannot be; the message names file and field.
    """
    from genai_operators.decisions.gpu_prices import price_list

    records = [_read(each) for each in (path, *overrides)]
    try:
        return price_list(*records)
    except ConfigurationError as error:
        raise ConfigurationError(f"{', '.join(str(each) for each in (path, *overrides))}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"price file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"price file {path}: not YAML: {error}") from error
    if not isinstance(record, Mapping):
        raise ConfigurationError(f"price file {path}: a mapping with date, currency and gpus is needed")
    return record
