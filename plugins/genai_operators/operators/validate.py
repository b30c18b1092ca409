"""Judge training data before a model may learn from it, and split it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from genai_operators.compute.contract import Artifact, Workload, code_digest
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.references import champion_dataset, file_artifact
from genai_operators.operators.traffic_window import feedback_window
from genai_operators.operators.workload import WorkloadOperator, owner_of
from genai_operators.spec.data import DataFormat, OutputKind
from genai_operators.store import Store, locate

if TYPE_CHECKING:
    from airflow.sdk import Context


class ValidateDatasetOperator(WorkloadOperator):
    """Turn files of rows, and what users said of the answers, into a judged and split data set.

    Rows become messages by the templates ``prompt`` and ``answer``; great-expectations judges numbers about them
    (roles, lengths, copies, personal data, secrets, overlap with the evaluation) by the suite. What users marked
    right or corrected since the champion's training becomes the *new* rows. No text reaches XCom, log or report. ::

        validate = ValidateDatasetOperator(
            task_id="validate",
            model="support_bot",
            train="include/data/messages.csv",
            prompt="{text}",
            answer="{category}",
        )
        FineTuneOperator(task_id="fine_tune", model="support_bot", dataset=validate.output, recipe="small")

    Output ``dataset``: train, evaluation, and with feedback new_train and new_evaluation (JSONL), profile and
    statistics.

    :param model: the model's public name; whose traffic is read.
    :param train: files of rows, paths from the project's root or URIs. CSV, JSONL or Parquet. Templated.
    :param evaluation: rows kept for evaluation; without it ``holdout`` of the training rows. Templated.
    :param data_format: ``auto`` goes by the file's ending.
    :param prompt: template of the user's message; ``{column}`` stands for a column's value.
    :param answer: template of the wished answer.
    :param system: a system message before every prompt.
    :param output_kind: what an answer is, ``text`` or ``json``.
    :param holdout: share of ``train`` held out when ``evaluation`` is not given.
    :param suite: file of expectations. Templated.
    :param feedback: also learn what users said.
    :param minimum_new_rows: fewer usable feedback rows than this are left for the next time.
    :param maximum_new_rows: at most so many, the newest.
    :param extra_data: one more file of training rows, for this run only. Templated.
    :raises DataError: the data cannot be read as said; the message names file, line and what to do.
    :raises GateFailed: an expectation that is critical is not met.
    """

    workload_kind = "validate"
    environment: ClassVar[Literal["airflow", "workload"]] = "airflow"
    template_fields: Sequence[str] = (
        "train",
        "evaluation",
        "suite",
        "extra_data",
        *WorkloadOperator.template_fields,
    )

    def __init__(
        self,
        *,
        model: str,
        train: str | Sequence[str],
        evaluation: str | None = None,
        data_format: str = DataFormat.AUTO.value,
        prompt: str = "{text}",
        answer: str = "{category}",
        system: str | None = None,
        output_kind: str = OutputKind.TEXT.value,
        holdout: float = 0.1,
        suite: str = "include/suites/messages.yaml",
        feedback: bool = True,
        minimum_new_rows: int = 100,
        maximum_new_rows: int = 5000,
        extra_data: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.train = [train] if isinstance(train, str) else list(train)
        self.evaluation = evaluation
        self.data_format = DataFormat(data_format).value
        self.prompt = prompt
        self.answer = answer
        self.system = system
        self.output_kind = OutputKind(output_kind).value
        self.holdout = holdout
        self.suite = suite
        self.feedback = feedback
        self.minimum_new_rows = minimum_new_rows
        self.maximum_new_rows = maximum_new_rows
        self.extra_data = extra_data

    def build_workload(self, context: Context) -> Workload:
        """Hash the files, read the suite, and choose the batches of traffic.

        :raises DataError: a file does not exist.
        :raises ConfigurationError: the suite cannot be read.
        """
        from genai_operators.hooks import settings

        root, store = settings.project_root(), self._open_store()
        files = [*self.train, *([self.extra_data] if self.extra_data not in (None, "", "None") else [])]
        inputs = {
            f"train_{number}": file_artifact(str(path), root=root, field="data.train")
            for number, path in enumerate(files)
        }
        if self.evaluation:
            inputs["evaluation"] = file_artifact(self.evaluation, root=root, field="data.evaluation")
        previous, window = self._taught(context, store) if self.feedback else (None, None)
        if previous is not None:
            inputs["previous"] = previous
        return Workload(
            kind=self.workload_kind,
            params={
                "model": self.model,
                "data": {
                    "format": self.data_format,
                    "prompt": self.prompt,
                    "answer": self.answer,
                    "system": self.system,
                    "output": self.output_kind,
                    "holdout": self.holdout,
                    "minimum_new_rows": self.minimum_new_rows,
                    "maximum_new_rows": self.maximum_new_rows,
                },
                "suite": _read_suite(self.suite, root=root),
                "feedback": window,
            },
            inputs=inputs,
            code_digest=code_digest(),
        )

    def _taught(self, context: Context, store: Store) -> tuple[Artifact | None, dict[str, int] | None]:
        """The champion's data set, if users taught it anything, and the batches that came after it."""
        from genai_operators.release.ledger import Ledger

        dataset, after = champion_dataset(Ledger(store, self.model).champion()), None
        if dataset is not None:
            place, path = locate(dataset.uri)
            stats = place.get_json(f"{path}/stats.json")
            after = stats["feedback"]["last"] if stats["feedback"] else None
            if not stats["counts"]["taught_rows"]:
                dataset = None
        window = feedback_window(store, self.model, after=after, owner=owner_of(context).key)
        if window is not None:
            self.log.info("feedback of traffic batches %s to %s", window.first, window.last)
        return dataset, window.model_dump() if window is not None else None


def _read_suite(path: str, *, root: Path) -> dict[str, Any]:
    import yaml

    from genai_operators.spec.loader import SUITES, what_is_missing

    file = root / Path(path).expanduser()
    try:
        record = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"data.suite: {file} cannot be read: {error.strerror}. Name an existing suite"
            f"{what_is_missing(SUITES, root=root) or '.'}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"data.suite: {file} is not YAML: {error}") from error
    if not isinstance(record, dict):
        raise ConfigurationError(f"data.suite: {file} is not a mapping with a list of expectations")
    return record
