"""Tuning of hyper-parameters with Optuna: studies, workers, leases of trials."""
