import subprocess
import sys
from dataclasses import fields

import pytest
from pydantic import ValidationError

from coterie.agents.learning.llm_config import PolicyGradientConfig
from coterie.agents.learning.llm_settings import LLMSettings, LoraSettings
from coterie.agents.learning.surrogates import GSPOLoss, PPOLoss
from coterie.config.load import rebuild
from coterie.errors import ConfigError


@pytest.fixture(autouse=True)
def _parts_are_known():
    rebuild()


def test_the_defaults_are_those_of_the_settings():
    assert PolicyGradientConfig().build() == LLMSettings()
    assert PolicyGradientConfig().advantage.kind == "reinforce++"


def test_faithful_is_what_the_paper_ran():
    config = PolicyGradientConfig(preset="faithful")
    built = config.build()
    assert built.loss == PPOLoss(0.2, 0.2, None) and built.correction is None and built.kl is None
    assert (built.updates, built.learning_rate, built.equal_roles) == (24, 1e-6, False)
    assert config.advantage.by == ("policy",)


def test_what_is_given_counts_more_than_the_preset():
    assert PolicyGradientConfig(preset="faithful", updates=3).build().updates == 3


def test_every_setting_can_be_set():
    given = PolicyGradientConfig.model_validate(
        {"loss": {"kind": "gspo", "clip_high": 1e-3}, "lora": {"rank": 8}, "aggregation": "seq_mean_token_mean",
         "correction": {"kind": "geometric", "low": 0.99, "high": 1.01, "mask": True}, "kl": {"weight": 0.1},
         "advantage": {"kind": "gae", "critic": {"weight": 0.5}}}
    ).build()  # fmt: skip
    assert given.loss == GSPOLoss(3e-4, 1e-3) and given.lora == LoraSettings(8) and given.correction.low == 0.99
    assert given.critic is not None and given.critic.weight == 0.5
    missing = {f.name for f in fields(LLMSettings)} - set(PolicyGradientConfig.model_fields)
    assert missing == {"critic"}  # set with the advantage that needs it


@pytest.mark.parametrize(
    "wrong",
    [
        {"kl": {"weight": 0.1, "estimator": "k1"}}, {"kl": {"weight": 0.1, "estimator": "k2", "at": "reward"}},
        {"correction": {"low": 3.0}}, {"updates": 3, "epochs": 2}, {"loss": "guess"}, {"lora": {"rank": 0}},
        {"ranks": 0}, {"ranks": {"solver": 0}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        PolicyGradientConfig.model_validate(wrong)


def test_processes_are_counted_for_all_policies_or_for_each():
    assert PolicyGradientConfig(ranks=3).build().num_ranks(["solver"]) == 3
    some = PolicyGradientConfig(ranks={"judge": 2}).build()
    assert (some.num_ranks(["solver"]), some.num_ranks(["judge"]), some.num_ranks(["judge", "solver"])) == (1, 2, 2)


def test_settings_refuse_it_too():
    with pytest.raises(ConfigError, match="epochs"):
        LLMSettings(updates=3, epochs=2)


def test_the_config_imports_nothing_heavy():
    code = "import sys, coterie.agents.learning.llm_config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_learner_imports_no_pydantic_and_no_peft():
    code = "import sys, coterie.agents.learning.llm; sys.exit(bool({'pydantic', 'peft', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
