"""The projection of run directories and studies into an MLflow store, and the store's server.

MLflow reads what keeps it quiet when it is imported: whatever of this package is imported first, it has been set.
"""

import os

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}  # no telemetry, no chatter; what fails, we say ourselves

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)  # what the user has set stays
