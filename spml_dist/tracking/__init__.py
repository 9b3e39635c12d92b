"""What a run records: metrics, machines, MLflow."""
