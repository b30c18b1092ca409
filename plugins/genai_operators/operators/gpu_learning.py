"""What finished trainings taught the GPU plan: one record a workload, folded whenever a plan is made.

``gpu_plan/observations/<fingerprint>.json``, written once however often a task is tried. Trainings on CPUs teach
nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from genai_operators.compute.contract import Result
from genai_operators.compute.ending import Ending
from genai_operators.compute.resources import Resources
from genai_operators.decisions.gpu_catalogue import CATALOGUE
from genai_operators.decisions.gpu_observation import Observation, PeakIs, learn_from
from genai_operators.decisions.gpu_options import Knowledge, TrainingRun
from genai_operators.decisions.gpu_setup import Sharding, TrainingSetup
from genai_operators.exceptions import DataError
from genai_operators.operators.training_need import Rows, TrainingNeed, stored_shape, training_need
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store

OBSERVATIONS = "gpu_plan/observations"
#: Bytes of the fullest GPU: of tensors, in a training's metrics; else as shown, in its supervisor's last heartbeat.
PEAK_METRIC = "peak_gpu_memory_bytes"


def observe_training(store: Store, result: Result) -> bool:
    """Keep what a finished ``fine_tune`` took: its recipe as it was asked, the shape of the model it made. Idempotent.

    :returns: whether this call wrote it.
    :raises ConfigurationError: the model's configuration is not understood.
    """
    model = result.outputs["model"].uri
    directory = store.path_of(model).partition("/attempts/")[0]
    recipe = Recipe.model_validate(store.get_json(f"{directory}/spec.json")["params"]["recipe"])
    rows = Rows(count=int(result.metrics.get("train_rows", 0)) or 1, mean_tokens=None, known_from="its own count")
    need = training_need(recipe, shape=stored_shape(model), rows=rows)
    return observe(store, directory, result, need=need)


def observe(store: Store, directory: str, result: Result, *, need: TrainingNeed) -> bool:
    """Keep what a finished training took, and which GPUs were too small for it before. Idempotent.

    :param directory: of the workload.
    :param need: what it was, as :func:`~genai_operators.operators.training_need.training_need` says.
    :returns: whether this call wrote it.
    """
    observations = [*_ran_out(store, directory, result, need=need), *_peak(store, directory, result, need=need)]
    if not observations:
        return False
    record = {"observations": [observation.to_json() for observation in observations]}
    return store.create_json(f"{OBSERVATIONS}/{directory.rpartition('/')[2]}.json", record)


def knowledge(store: Store) -> Knowledge:
    """Everything learnt so far.

    :raises DataError: a record of another version or form; the message names it.
    """
    return learn_from(each for info in store.list(OBSERVATIONS) for each in _read(store, info.path))


def _read(store: Store, path: str) -> list[Observation]:
    try:
        return [Observation.from_json(each) for each in store.get_json(path)["observations"]]
    except (DataError, KeyError, TypeError) as error:
        raise DataError(f"{store.uri_of(path)}: {error}. Delete it, and the plan no longer learns from it.") from error


def _peak(store: Store, directory: str, result: Result, *, need: TrainingNeed) -> Iterator[Observation]:
    """Of the attempt that won; nothing without a GPU."""
    peak, peak_is = result.metrics.get(PEAK_METRIC, 0.0), PeakIs.LIVE
    if not peak:
        heartbeat = store.find_json(f"{directory}/attempts/{result.attempt}/heartbeat.json") or {}
        peak, peak_is = heartbeat.get(PEAK_METRIC) or 0.0, PeakIs.SHOWN
    if peak <= 0:
        return
    resources = _resources(store, directory, result.attempt)
    # An attempt that went on from a checkpoint did a part of the steps only.
    whole = result.attempt == 1 and resources.nodes == 1
    yield Observation(
        shape=need.shape,
        setup=_setup(need, resources, result.metrics),
        run=replace(_done(need, result.metrics), startup_hours=0.0),
        gpu=resources.gpu if resources.gpu in CATALOGUE else None,
        peak=peak,
        peak_is=peak_is,
        hours=result.seconds / 3600 if whole and result.seconds > 0 else None,
    )


def _ran_out(store: Store, directory: str, result: Result, *, need: TrainingNeed) -> Iterator[Observation]:
    """Of the attempts before, those whose GPU had too little memory."""
    for number in range(1, result.attempt):
        ending = store.find_json(f"{directory}/attempts/{number}/exit.json")
        resources = _resources(store, directory, number)
        if ending and Ending.from_json(ending).memory_that_ran_out == "gpu" and resources.gpu in CATALOGUE:
            yield Observation(
                shape=need.shape,
                setup=_setup(need, resources, result.metrics),
                run=need.run,
                gpu=resources.gpu,
                ran_out_of=CATALOGUE[resources.gpu].memory,
            )


def _resources(store: Store, directory: str, attempt: int) -> Resources:
    claim = store.find_json(f"{directory}/attempts/{attempt}/claim.json") or {}
    return Resources.from_json(claim.get("resources") or {})


def _setup(need: TrainingNeed, resources: Resources, metrics: Mapping[str, float]) -> TrainingSetup:
    """How it was trained on these machines, by rows as long as they really were."""
    gpus = max(1, resources.gpu_count)
    each = need.run.global_batch // (gpus * resources.nodes) or 1
    micro = min(each, resources.micro_batch or each)
    longest = int(metrics.get("longest_row_tokens") or need.setup.sequence_length)
    return replace(
        need.setup,
        sequence_length=min(longest, need.setup.sequence_length),
        gpus=gpus,
        micro_batch=micro,
        accumulation=max(1, each // micro),
        sharding=Sharding.NONE if gpus == 1 else Sharding.DDP,
    )


def _done(need: TrainingNeed, metrics: Mapping[str, float]) -> TrainingRun:
    """The run as it was: its steps were counted."""
    steps = metrics.get("train_steps")
    if not steps:
        return need.run
    rows, tokens = metrics.get("train_rows"), metrics.get("train_tokens")
    mean = min(tokens / rows, float(need.setup.sequence_length)) if rows and tokens else need.run.mean_length
    return replace(need.run, sequences=round(steps * need.run.global_batch), epochs=1.0, mean_length=mean)
