"""The retraining of support_bot as an Airflow DAG composed by hand: copy it, and change what a model file cannot say.

It does what `support_bot__retrain` does, without a model file, a form or a schedule. Each operator stands alone: take
the ones you need. Heavy work never runs in the task itself; a retry, on any worker, meets the work that the first try
began.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.definitions.asset import Dataset, Model

from genai_operators import (
    CanaryReleaseOperator,
    EvaluateModelOperator,
    FineTuneOperator,
    RegisterModelOperator,
    ValidateDatasetOperator,
)

MODEL = "support_bot"

# What passes between the tasks, as Airflow's asset graph shows it; another DAG may be scheduled on each.
ROWS = Asset(name="by_hand_rows", uri="x-genai://rows/by_hand")
DATASET = Dataset(name="by_hand_dataset", uri="x-genai://datasets/by_hand")
WEIGHTS = Model(name="by_hand_weights", uri="x-genai://weights/by_hand")
EVALUATION = Asset(name="by_hand_evaluation", uri="x-genai://evaluations/by_hand")
VERSIONS = Model(name="by_hand_versions", uri="x-mlflow://models/by_hand")
# An alias: it has an event when a release was promoted, not whenever the task succeeds.
CHAMPION = AssetAlias("by_hand_champion")

with DAG(
    dag_id="retraining_by_hand",
    description="The retraining of support_bot, composed from operators",
    doc_md=__doc__,
    # When the drift check asks for it: schedule=AssetAlias("support_bot_drift"). At a time: schedule="0 3 * * 1".
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["genai", MODEL, "example"],
    # Whether a failure is worth a retry is decided by its class; this is only how often and how soon.
    default_args={"owner": "support-team", "retries": 2, "retry_delay": timedelta(seconds=30)},
) as dag:
    # 1. Rows become messages and are judged by the suite. Unchanged files are not judged twice.
    #    Your own columns: prompt="{text}", answer="{category}".
    validate = ValidateDatasetOperator(
        task_id="validate",
        model=MODEL,
        train="include/data/support_bot/first.jsonl",
        evaluation="include/data/support_bot/evaluation.jsonl",
        output_kind="json",
        inlets=[ROWS],
        outlets=[DATASET],
    )

    # 2. Train. `validate.output` is a small reference; the data itself stays in the object store.
    #    Once there is a champion: recipe="lora_refresh", refresh=True goes on from its weights with the new rows.
    fine_tune = FineTuneOperator(
        task_id="fine_tune",
        model=MODEL,
        dataset=validate.output,
        recipe="tiny_llama",
        seed=0,
        timeout=timedelta(minutes=30),
        inlets=[DATASET],
        outlets=[WEIGHTS],
    )

    # 3. The gate: not worse than the champion on old rows, by a margin; 60 % right at the very least.
    #    on_failure="ask" lets a person decide instead of failing.
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        model=MODEL,
        dataset=validate.output,
        candidate=fine_tune.output,
        evaluate={"margin": 0.05, "minimum_items": 50, "minimum_exact_match": 0.6},
        output_kind="json",
        inlets=[DATASET, WEIGHTS],
        outlets=[EVALUATION],
    )

    # 4. Sign it and make it a version in MLflow. The same weights are the same version.
    register = RegisterModelOperator(
        task_id="register",
        model=MODEL,
        training=fine_tune.output["result"],
        evaluation=evaluate.output["result"],
        inlets=[WEIGHTS, EVALUATION],
        outlets=[VERSIONS],
    )

    # 5. A share of live traffic, step by step. Promoted by proof; rolled back by proof of harm, or at the deadline.
    CanaryReleaseOperator(
        task_id="release",
        model=MODEL,
        version=register.output["version"],
        digest=register.output["digest"],
        canary={
            "steps": [
                {"percent": 5, "minimum_soak": "1m", "minimum_requests": 20},
                {"percent": 25, "minimum_soak": "2m", "minimum_requests": 100},
            ],
            "guardrails": {"errors": {"margin": 2.0, "ceiling": 0.05}},
            "deadline": "1h",
        },
        output_kind="json",
        inlets=[VERSIONS],
        outlets=[CHAMPION],
    )
