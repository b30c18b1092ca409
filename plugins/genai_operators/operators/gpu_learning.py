"""What finished trainings taught the GPU plan: one record a workload, folded whenever a plan is made.

``gpu_plan/observations/<fingerprint>.json``, written once however often a task is tried. Trainings on CPUs teach
nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from genai_operators.compute.contract import Result
from genai_operators.compute.resources import Resources
from genai_operators.decisions.gpu_catalogue import CATALOGUE
from genai_operators.decisions.gpu_observation import Observation, learn_from
from genai_operators.decisions.gpu_options import Knowledge, TrainingRun
from genai_operators.decisions.gpu_setup import Sharding
from genai_operators.operators.training_need import Rows, TrainingNeed, stored_shape, training_need
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store

OBSERVATIONS = "gpu_plan/observations"
#: In a training's metrics, or in the last heartbeat of its supervisor: bytes of the fullest GPU.
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
    """Keep what a finished training took. Idempotent.

    :param directory: of the workload.
    :param need: what it was, as :func:`~genai_operators.operators.training_need.training_need` says.
    :returns: whether this call wrote it.
    """
    observation = observation_of(store, directory, result, need=need)
    if observation is None:
        return False
    return store.create_json(f"{OBSERVATIONS}/{directory.rpartition('/')[2]}.json", observation.to_json())


def observation_of(store: Store, directory: str, result: Result, *, need: TrainingNeed) -> Observation | None:
    """``None`` for a training without a GPU."""
    heartbeat = store.find_json(f"{directory}/attempts/{result.attempt}/heartbeat.json") or {}
    peak = result.metrics.get(PEAK_METRIC) or heartbeat.get(PEAK_METRIC) or 0.0
    if peak <= 0:
        return None
    claim = store.find_json(f"{directory}/attempts/{result.attempt}/claim.json") or {}
    resources = Resources.from_json(claim.get("resources") or {})
    gpus = max(1, resources.gpu_count)
    each = need.run.global_batch // (gpus * resources.nodes) or 1
    micro = min(each, resources.micro_batch or each)
    longest = int(result.metrics.get("longest_row_tokens") or need.setup.sequence_length)
    setup = replace(
        need.setup,
        sequence_length=min(longest, need.setup.sequence_length),
        gpus=gpus,
        micro_batch=micro,
        accumulation=max(1, each // micro),
        sharding=Sharding.NONE if gpus == 1 else Sharding.DDP,
    )
    # An attempt that went on from a checkpoint did a part of the steps only.
    whole = result.attempt == 1 and resources.nodes == 1
    return Observation(
        shape=need.shape,
        setup=setup,
        run=replace(_done(need, result.metrics), startup_hours=0.0),
        gpu=resources.gpu if resources.gpu in CATALOGUE else None,
        peak=peak,
        cache_counted=True,  # rows are padded to the longest of their batch, so lengths vary
        hours=result.seconds / 3600 if whole and result.seconds > 0 else None,
    )


def knowledge(store: Store) -> Knowledge:
    """Everything learnt so far.

    :raises DataError: a record of another version.
    """
    paths = [info.path for info in store.list(OBSERVATIONS)]
    return learn_from(Observation.from_json(store.get_json(path)) for path in paths)


def _done(need: TrainingNeed, metrics: Mapping[str, float]) -> TrainingRun:
    """The run as it was: its steps were counted."""
    steps = metrics.get("train_steps")
    if not steps:
        return need.run
    rows, tokens = metrics.get("train_rows"), metrics.get("train_tokens")
    mean = min(tokens / rows, float(need.setup.sequence_length)) if rows and tokens else need.run.mean_length
    return replace(need.run, sequences=round(steps * need.run.global_batch), epochs=1.0, mean_length=mean)
