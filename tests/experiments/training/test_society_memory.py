"""What a training says of the memory it will take."""

import pytest
import torch

from coterie.agents.engines import auto, vllm
from coterie.config.load import loads
from coterie.errors import EnvironmentMissing
from coterie.experiments.training.society_memory import check_plan, plan_memory
from coterie.orchestration.memory_plan import GIB, ModelSize, plan_engine
from coterie.orchestration.pool import EngineSpec
from coterie.testing.models import write_llama

CARD = 80 * GIB


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"), alphabet="0123456789", layers=1, width=32)


@pytest.fixture(autouse=True)
def card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (CARD // 2, CARD))


def planned(llama, device, engine, frozen=False, **learning):
    given = {"engine": {"dtype": "float32", **engine}, "model": str(llama), "sampling": {"temperature": 1.0}}
    config = loads({
        "name": "planned", "policies": {"base": given, "judge": given | {"frozen": frozen}}, "protocol": "machinesom",
        "seats": [{"name": "ann", "policy": "base"}, {"name": "bob", "policy": "judge"}], "rewards": ["verifier"],
        "benchmark": {"kind": "sums", "limit": 4},
        "learning": {"kind": "policy_gradient", "precision": "float32", **learning},
    }).config  # fmt: skip
    spec = EngineSpec("engine-0", config.policies["base"].engine, str(llama), 0, exact=False)
    return plan_memory(config, {"engine-0": spec}, device)


def test_an_engine_has_its_weights_and_what_its_kind_keeps_for_keys_and_values(llama):
    size = ModelSize.of(str(llama))
    for engine, device, cache in (
        ({"kind": "vllm", "memory": 1.5}, "cpu", int(1.5 * GIB)),
        ({"kind": "transformers", "context": 100, "max_batch": 3}, "cpu", 100 * 3 * size.cached * 4),
        ({"kind": "transformers", "context": 100, "max_batch": 3}, "cuda", 100 * 3 * size.cached * 4),
    ):
        plan = planned(llama, device, engine)[0][2]
        assert plan.items == {"weights": 4 * size.parameters, "keys and values": cache}


@pytest.mark.parametrize("kind", ["vllm", "auto"])
def test_on_a_gpu_vllm_takes_its_share_of_the_card_whole(llama, monkeypatch, kind):
    monkeypatch.setattr(vllm, "version", lambda: "0.1")
    monkeypatch.setattr(auto.platform, "system", lambda: "Linux")
    share = {"gpu_memory_utilization": 0.4} if kind == "vllm" else {}
    name, count, plan = planned(llama, "cuda", {"kind": kind, **share})[0]
    assert (count, plan.total) == (1, int((0.4 if share else 0.85) * CARD))
    assert plan_engine(ModelSize.of(str(llama)), "float32", 0, parts=2).total * 2 == plan.items["weights"]


def test_ranks_share_what_is_trained_and_not_their_activations(llama):
    engine = {"kind": "transformers"}
    (_, one, whole), (_, two, part) = (planned(llama, "cuda", engine, True, ranks=n)[1] for n in (1, 2))
    assert one == two == 1
    for name, size in whole.items.items():
        assert part.items[name] == (size if name in ("activations (estimate)", "logits") else size // 2), name
    assert planned(llama, "cpu", engine, True, ranks=2)[1][1] == 2
    assert [count for _, count, _ in planned(llama, "cuda", engine, ranks={"base": 2})[1:]] == [1, 1]


def test_a_critic_is_one_layer(llama):
    """Weights, gradients and two moments of 32 numbers and one."""
    plain, gae = (planned(llama, "cpu", {"kind": "transformers"}, advantage=kind)[1][2] for kind in ("rloo", "gae"))
    assert gae.items == {**plain.items, "critic": 4 * 4 * 33}


def test_an_engine_that_sleeps_and_a_learner_at_work_are_never_there_together(llama, monkeypatch):
    free, card = 60 << 20, 100 << 20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, card))
    engine = {"kind": "vllm", "gpu_memory_utilization": 0.4}
    asleep, awake = (planned(llama, "cuda", engine | {"sleep": s}, lora={"rank": 2}) for s in (True, False))
    (_, _, mine), (_, _, learner) = asleep
    lasting = sum(learner.items[name] for name in ("weights", "optimiser", "adapters"))
    assert (mine.during("update"), mine.during("rollout")) == (0, 40 << 20)
    assert (learner.during("update"), learner.during("rollout")) == (learner.total, lasting)
    assert learner.total < free < learner.total + mine.total
    assert check_plan(asleep, "cuda")
    with pytest.raises(EnvironmentMissing, match="let the engine `sleep`"):
        check_plan(awake, "cuda")


def test_what_is_larger_than_the_free_memory_is_refused(llama):
    told = check_plan(planned(llama, "cuda", {"kind": "vllm", "gpu_memory_utilization": 0.4}), "cuda")
    assert "memory on cuda: about 32" in told and "of 40.0 GiB that are free" in told
    with pytest.raises(EnvironmentMissing, match="do not fit into memory together"):
        check_plan(planned(llama, "cuda", {"kind": "vllm"}), "cuda")
