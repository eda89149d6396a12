"""What this package registers. Strings only."""

from coterie.registry import register

_PROTOCOLS = "coterie.orchestration.protocols"
register("protocol", "machinesom", config=f"{_PROTOCOLS}.config:MachineSomConfig",
         impl=f"{_PROTOCOLS}.machinesom:MachineSom",
         summary="traits, debate and reflection in any strategy of 1 to 5 rounds (MachineSoM)")  # fmt: skip
register("protocol", "single", config=f"{_PROTOCOLS}.config:SingleConfig", impl=f"{_PROTOCOLS}.single:Single",
         summary="one agent answers once")  # fmt: skip
register("protocol", "self_consistency", config=f"{_PROTOCOLS}.config:SelfConsistencyConfig",
         impl=f"{_PROTOCOLS}.self_consistency:SelfConsistency",
         summary="one agent answers many times, the majority wins")  # fmt: skip
register("protocol", "selforg", config=f"{_PROTOCOLS}.config:SelfOrgConfig", impl=f"{_PROTOCOLS}.selforg:SelfOrg",
         summary="agents rewire who reads whom by similarity and contribution (SelfOrg)")  # fmt: skip
register("protocol", "debate", config=f"{_PROTOCOLS}.config_debates:DebateConfig", impl=f"{_PROTOCOLS}.debate:Debate",
         summary="everybody reads everybody and answers again, majority (Du et al.)")  # fmt: skip
register("protocol", "mad", config=f"{_PROTOCOLS}.config_debates:MadConfig", impl=f"{_PROTOCOLS}.mad:Mad",
         summary="two sides and a judge (MAD)")  # fmt: skip
register("protocol", "group_think", config=f"{_PROTOCOLS}.config_debates:GroupThinkConfig",
         impl=f"{_PROTOCOLS}.group_think:GroupThink",
         summary="thinkers that read each other's unfinished work (Group Think)")  # fmt: skip
register("protocol", "dylan", config=f"{_PROTOCOLS}.config_networks:DylanConfig", impl=f"{_PROTOCOLS}.dylan:Dylan",
         summary="layers with early agreement, a ranker and importance scores (DyLAN)")  # fmt: skip
register("protocol", "macnet", config=f"{_PROTOCOLS}.config_networks:MacNetConfig", impl=f"{_PROTOCOLS}.macnet:MacNet",
         summary="an artefact travels a graph of actors and critics (MacNet)")  # fmt: skip
register("protocol", "agentverse", config=f"{_PROTOCOLS}.config_teams:AgentVerseConfig",
         impl=f"{_PROTOCOLS}.agentverse:AgentVerse",
         summary="roles written for the task, a group decision, an evaluator (AgentVerse)")  # fmt: skip
register("protocol", "autogen", config=f"{_PROTOCOLS}.config_teams:AutoGenConfig",
         impl=f"{_PROTOCOLS}.autogen:AutoGen",
         summary="an assistant and a proxy talk until the stop word (AutoGen)")  # fmt: skip
register("protocol", "comas", config=f"{_PROTOCOLS}.config_comas:ComasConfig", impl=f"{_PROTOCOLS}.comas:Comas",
         summary="solve, evaluate and score each other; the discussion is the reward (CoMAS)")  # fmt: skip
register("probe", "p_true", config="coterie.orchestration.config_probes:PTrueConfig",
         impl="coterie.orchestration.probes:PTrue",
         summary="is your answer right, True or False? its probability, or the share of True")  # fmt: skip
register("probe", "verbal_confidence", config="coterie.orchestration.config_probes:VerbalConfidenceConfig",
         impl="coterie.orchestration.probes:VerbalConfidence",
         summary="how sure are you of your answer, from 0 to 100?")  # fmt: skip

_WORLDS, _RULES = "coterie.rewards.credit.config_world", "coterie.orchestration.world_credit"
register("world_credit", "equal", config=f"{_WORLDS}:EqualConfig", impl=f"{_RULES}:EqualCredit",
         summary="every agent of a team learns from the mean of what it earned")  # fmt: skip
register("world_credit", "difference", config=f"{_WORLDS}:DifferenceConfig", impl=f"{_RULES}:DifferenceCredit",
         summary="less what the team would have earned without the agent, simulated (difference rewards)")  # fmt: skip
register("world_credit", "attention", config=f"{_WORLDS}:AttentionShareConfig", impl=f"{_RULES}:AttentionCredit",
         summary="shares by a critic of the team's reward that attends to its members (MAAC)")  # fmt: skip

register("executor", "local", config="coterie.orchestration.config:LocalConfig",
         impl="coterie.orchestration.local:LocalExecutor", summary="one process")  # fmt: skip
register("executor", "ray", config="coterie.orchestration.config:RayConfig",
         impl="coterie.orchestration.ray.executor:RayExecutor",
         summary="agent workers and engine replicas as Ray actors, on one machine or a cluster")  # fmt: skip
