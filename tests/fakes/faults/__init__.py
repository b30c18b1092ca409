"""What may befall a workload in a cluster: one module a cause, one function a row of the table of injected faults."""
