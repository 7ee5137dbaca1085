"""Tuning of hyper-parameters with Optuna."""
