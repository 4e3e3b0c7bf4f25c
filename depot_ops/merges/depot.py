"""The depot whose merge jobs are carried out."""

from depot_api.client import DepotClient
from depot_api.client.http import PATIENT, Patience
from depot_ops.settings import ExecutorSettings, load


def connect(patience: Patience = PATIENT) -> DepotClient:
    """A client for DEPOT_URL with DEPOT_TOKEN. Raises SettingsError, and Unreachable for what is no address."""
    settings = load(ExecutorSettings)
    return DepotClient(str(settings.depot_url), settings.depot_token.get_secret_value(), patience=patience)
