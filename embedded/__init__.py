"""The embedded platform: Airflow, MLflow, Envoy, model servers and an object store on one machine, on loopback only."""
