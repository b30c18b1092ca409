"""great-expectations judges the table of row features by a suite file; its results become one verdict.

The table holds numbers and codes only, and results are asked for without examples, so no text of a row can reach a
result, a report or a log. Importing great-expectations takes 5 to 19 s: this module is imported by the validation
alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genai_operators.decisions.verdict import Check, Outcome, Severity
from genai_operators.exceptions import DataError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

#: The only formats that leak no value: this one, and BOOLEAN_ONLY, which has no figures.
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 0}

#: How the message of a check begins whose observed value is that.
SHARE_OF_ROWS = "share of rows that are not as expected"


class SuiteExpectation(BaseModel):
    """One expectation, in great-expectations' own words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="What the report calls it.")
    type: str = Field(description="Type of the expectation, e.g. expect_column_values_to_be_between.")
    kwargs: dict[str, Any] = Field(default_factory=dict)
    severity: Severity = "critical"
    message: str = Field("", description="What to do when it is not met.")


class Suite(BaseModel):
    """A suite file of ``include/suites``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "messages"
    description: str = ""
    expectations: tuple[SuiteExpectation, ...] = Field(min_length=1)

    @classmethod
    def parse(cls, record: Mapping[str, Any], *, where: str) -> Suite:
        """:raises DataError: naming the suite and the first field that is wrong."""
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(f"suite {where}, {field}: {first['msg']}") from error


def judge(table: pl.DataFrame, suite: Suite) -> list[Check]:
    """Validate the table; one check for each expectation, in the order of the suite.

    :raises DataError: when the suite names an expectation or argument that great-expectations does not know.
    """
    for expectation in suite.expectations:
        _check_columns(expectation, suite, table.columns)
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # a wrong suite is our message, not a traceback
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    expectations = gx.ExpectationSuite(name=suite.name)
    for number, expectation in enumerate(suite.expectations):
        try:
            expectations.add_expectation_configuration(_configuration(expectation, number))
        except (gx.exceptions.GreatExpectationsError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"suite {suite.name}, expectation {expectation.name!r}: {reason}") from error
    assets = context.data_sources.add_pandas("rows").add_dataframe_asset("features")
    definition = gx.ValidationDefinition(
        name=suite.name,
        data=assets.add_batch_definition_whole_dataframe("all"),
        suite=context.suites.add(expectations),
    )
    result = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": _as_pandas(table)}, result_format=RESULT_FORMAT
    )
    found = {item.expectation_config.meta["number"]: item.to_json_dict() for item in result.results}
    return [
        _check(expectation, found[number], rows=len(table)) for number, expectation in enumerate(suite.expectations)
    ]


def _as_pandas(table: pl.DataFrame) -> pd.DataFrame:
    """``table.to_pandas()`` needs pyarrow, which nothing else here does (156 MB installed); arrays do without."""
    import pandas as pd

    return pd.DataFrame({column.name: column.to_numpy() for column in table})


def _configuration(expectation: SuiteExpectation, number: int) -> Any:
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    return ExpectationConfiguration(
        type=expectation.type,
        kwargs=dict(expectation.kwargs),
        meta={"number": number},
        severity=expectation.severity,
    )


def _check_columns(expectation: SuiteExpectation, suite: Suite, columns: Sequence[str]) -> None:
    column = expectation.kwargs.get("column")
    if column is not None and column not in columns:
        raise DataError(
            f"suite {suite.name}, expectation {expectation.name!r}: the row features have no column {column!r}; "
            f"they are {', '.join(columns)}"
        )


def _check(expectation: SuiteExpectation, result: Mapping[str, Any], *, rows: int) -> Check:
    figures = result.get("result") or {}
    unexpected = figures.get("unexpected_percent")
    observed = figures.get("observed_value")
    value: float | None
    threshold: float | None
    if unexpected is not None:
        value, threshold = float(unexpected) / 100, 1 - float(expectation.kwargs.get("mostly", 1.0))
        meaning = SHARE_OF_ROWS
    else:
        value = float(observed) if isinstance(observed, (int, float)) else None
        bound = expectation.kwargs.get("max_value", expectation.kwargs.get("min_value"))
        threshold = float(bound) if isinstance(bound, (int, float)) else None
        meaning = "observed value"
    met = bool(result["success"])
    return Check(
        name=expectation.name,
        outcome=Outcome.PASS if met else Outcome.FAIL,
        observed=value,
        threshold=threshold,
        n=int(figures.get("element_count", rows)),
        severity=expectation.severity,
        message=meaning if met else f"{meaning}. {expectation.message}".strip(),
    )
