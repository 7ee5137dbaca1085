"""Whether a tracking server can be used. Part of ``tracking``; imported where a store is one."""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from benchmark.system.credentials import unsecret
from benchmark.tracking.check import Unreachable, failure
from bism.errors import InputError


def check_server(what: str, address: str) -> None:
    """A tracking server, by what MLflow itself would ask, with the credentials and through the proxy that it takes.

    Raises:
        Unreachable: it does not answer, or cannot do its work now.
        InputError: it refuses us, or it is another server.
    """
    where = f"{what} {unsecret(address)}"
    try:
        answer: Any = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(address),  # type: ignore[no-untyped-call]
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            max_retries=0,
            raise_on_status=False,
        )
    except (MlflowException, OSError, ValueError) as error:
        raise failure(what, address, error) from error
    if answer.status_code in (401, 403):
        raise InputError(
            f"{where} refuses us (HTTP {answer.status_code}): MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            f"or MLFLOW_TRACKING_TOKEN, say who we are"
        )
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Unreachable(f"{where} cannot be reached: HTTP {answer.status_code}.")
    if answer.status_code != 200 or not answer.text.lstrip().startswith("{"):
        raise InputError(
            f"{where} cannot be used: no MLflow server answers there (HTTP {answer.status_code}); "
            f"is something wrong with the port, or with the path after it?"
        )
