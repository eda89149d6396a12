"""One training of two models whose tokenizers have nothing in common."""

import coterie
from coterie.agents.learning.llm import LanguageLearner
from coterie.journal import Journal
from coterie.testing.models import write_llama

ALPHABETS = {"ann": "0123456789 +?", "bob": "Score:Answerabcdefghijklmnopqtuvxyz0123456789 \n.?+-="}


def test_every_policy_learns_the_tokens_that_its_own_engine_read_and_said(tmp_path, monkeypatch):
    models = {
        name: write_llama(tmp_path / name, alphabet=alphabet, layers=1, width=32, seed=number)
        for number, (name, alphabet) in enumerate(ALPHABETS.items())
    }
    update, learnt = LanguageLearner.update, {}

    def watched(self, policy, examples, *, iteration):
        learnt[policy] = {one.key: (one.prompt_ids, one.token_ids) for one in examples}
        return update(self, policy, examples, iteration=iteration)

    monkeypatch.setattr(LanguageLearner, "update", watched)
    policy = {"engine": {"kind": "transformers", "dtype": "float32", "context": 1024},
              "sampling": {"temperature": 1.0, "max_tokens": 8}}  # fmt: skip
    config = {
        "name": "two", "seed": 3, "device": "cpu", "protocol": "machinesom", "rewards": ["verifier"],
        "policies": {name: {**policy, "model": str(path)} for name, path in models.items()},
        "seats": [{"name": f"seat-{name}", "policy": name} for name in models],
        "benchmark": {"kind": "sums", "limit": 2},
        "learning": {"kind": "policy_gradient", "iterations": 1, "tasks": 2, "episodes_per_task": 2,
                     "advantage": "rloo", "updates": 1, "mask_cut": False},
    }  # fmt: skip
    run = coterie.run(config, runs=tmp_path / "runs")
    with Journal.read(run.folder.journal) as journal:
        turns = {fact.key: fact.payload for fact in journal.facts("turn")}
        (row,) = [fact.payload for fact in journal.facts("update")]
    for name in models:
        said = {key: turn for key, turn in turns.items() if turn["policy"] == name}
        assert learnt[name].keys() == {key for key, turn in said.items() if turn["token_ids"]}
        for key, (prompt, reply) in learnt[name].items():
            assert [*prompt, *reply] == [*said[key]["prompt_ids"], *said[key]["token_ids"]]
            assert decode(models[name], reply) == said[key]["text"]
        assert row["policies"][name]["learning"]["mismatch_kl"] < 1e-6


def decode(model, ids):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model).decode(list(ids), skip_special_tokens=True)
