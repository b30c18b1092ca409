-- PostgreSQL makes the database `airflow` by itself; MLflow's tables have names that Airflow's have as well.
CREATE DATABASE mlflow;
