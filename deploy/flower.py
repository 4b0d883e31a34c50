"""Flower's settings, for `celery flower --conf=deploy/flower.py`.

FLOWER_BASIC_AUTH and FLOWER_BROKER_API cannot have a password with a comma, a slash or an @. Here any password works.
"""

import sys
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from service.settings import BrokerSettings, HttpUrl, SettingsError, read


class FlowerSettings(BrokerSettings):
    """Flower's password, and the address of RabbitMQ's management API.

    Everybody who has the password can see Flower. Flower uses its broker user for the management API, too.
    """

    flower_user: Annotated[str, Field(pattern="^[^:]+$")] = "flixtrail"
    flower_password: Annotated[str, Field(min_length=1)]
    management_url: HttpUrl | None = None


try:
    _settings = read(FlowerSettings)
except SettingsError as error:
    sys.exit(f"flower: {error}")

basic_auth = [f"{_settings.flower_user}:{_settings.flower_password}"]
if _settings.management_url:
    _scheme, _, _host = _settings.management_url.rstrip("/").partition("://")
    # The user and the password are quoted already in the broker's address.
    _who = urlsplit(_settings.amqp_url).netloc.rpartition("@")[0]
    broker_api = f"{_scheme}://{_who}@{_host}/api/"
# Seconds for which Flower still shows a worker that was scaled away.
purge_offline_workers = 60
