"""Models that were logged to MLflow before 0.2 are rebuilt by this name."""

from benchmark.tasks.models import MODELS, build_model

__all__ = ["MODELS", "build_model"]
