"""The depot whose merge jobs are carried out."""

from depot_api.client import DepotClient
from depot_api.client.http import PATIENT, Patience
from depot_ops.settings import ExecutorSettings, load


def connect(patience: Patience = PATIENT, origin: str | None = None) -> DepotClient:
    """A client for DEPOT_URL with DEPOT_TOKEN; `origin` begins the ids of its requests.

    Raises SettingsError, and Unreachable for what is no address.
    """
    settings = load(ExecutorSettings)
    token = settings.depot_token.get_secret_value()
    return DepotClient(str(settings.depot_url), token, patience=patience, origin=origin)
