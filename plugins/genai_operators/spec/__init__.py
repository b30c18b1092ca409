"""The YAML contract: what a model file may say, and clear words for what it may not.

Knows nothing of Airflow, so ``make check``, the workloads and the tests read it alike.
"""
