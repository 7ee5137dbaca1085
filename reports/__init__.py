"""Figures redrawn from what MLflow holds. Needs no torch."""
