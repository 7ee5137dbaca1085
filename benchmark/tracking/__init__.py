"""The projection of run directories and studies into an MLflow store, and the store's server."""
