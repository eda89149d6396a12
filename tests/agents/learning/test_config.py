from dataclasses import asdict, fields

import pytest

from coterie.agents.learning.config import IppoConfig, MappoConfig
from coterie.agents.learning.settings import PPOSettings
from coterie.errors import ConfigError


@pytest.mark.parametrize("config", [IppoConfig, MappoConfig])
def test_configs_and_settings_have_the_same_fields(config):
    assert {*config.model_fields, "central"} - {"kind"} == {field.name for field in fields(PPOSettings)}


def test_configs_and_settings_have_the_same_defaults():
    assert IppoConfig().build() == PPOSettings()
    assert asdict(MappoConfig().build()) == asdict(PPOSettings(central=True))


def test_learning_rates_out_of_order_are_refused():
    with pytest.raises(ConfigError, match="learning rate"):
        IppoConfig(learning_rate=0.01).build()
