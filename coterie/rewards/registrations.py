"""What this package registers. Strings only."""

from coterie.registry import register

register("reward", "verifier", config="coterie.rewards.config:VerifierConfig", impl="coterie.rewards.verifier:Verifier",
         summary="what the benchmark's grader says of each answer (RLVR)")  # fmt: skip

_REWARDS = "coterie.rewards.config_rewards"
register("reward", "interaction", config=f"{_REWARDS}:InteractionConfig",
         impl="coterie.rewards.interaction:Interaction",
         summary="solution and evaluation share what the score gives (CoMAS)")  # fmt: skip
register("reward", "co_rl", config=f"{_REWARDS}:CoRlConfig", impl="coterie.rewards.votes:CoRl",
         summary="agreement with the majority of the others (Co-RL)")  # fmt: skip
register("reward", "ttrl", config=f"{_REWARDS}:TtrlConfig", impl="coterie.rewards.votes:Ttrl",
         summary="agreement with the majority of all (TTRL)")  # fmt: skip
register("reward", "maporl", config=f"{_REWARDS}:MaporlConfig", impl="coterie.rewards.shaping:Maporl",
         summary="the verdict, and how it moved from what was said before (MAPoRL)")  # fmt: skip

_CONTRIBUTIONS = "coterie.rewards.contributions"
register("contribution", "psi", config="coterie.rewards.config:PsiConfig", impl=f"{_CONTRIBUTIONS}:Psi",
         summary="cosine to the mean embedding (SelfOrg)")  # fmt: skip
register("contribution", "softmax_psi", config="coterie.rewards.config:SoftmaxPsiConfig",
         impl=f"{_CONTRIBUTIONS}:SoftmaxPsi",
         summary="softmax of the cosines to the mean embedding (SelfOrg's public code)")  # fmt: skip
register("contribution", "exact", config="coterie.rewards.config:ExactConfig", impl=f"{_CONTRIBUTIONS}:Exact",
         summary="Shapley values of the embeddings, by enumeration; at most 14 agents")  # fmt: skip
register("contribution", "banzhaf", config="coterie.rewards.config:BanzhafConfig", impl=f"{_CONTRIBUTIONS}:Banzhaf",
         summary="Banzhaf values of the embeddings, by enumeration; at most 14 agents")  # fmt: skip
register("contribution", "leave_one_out", config="coterie.rewards.config:LeaveOneOutConfig",
         impl=f"{_CONTRIBUTIONS}:LeaveOneOut",
         summary="how far the agent alone turns the society's embedding; highest for dissenters")  # fmt: skip
register("contribution", "permutation", config="coterie.rewards.config:PermutationConfig",
         impl=f"{_CONTRIBUTIONS}:Permutation",
         summary="sampled Shapley values of the embeddings, with standard errors")  # fmt: skip

_ADVANTAGES, _ESTIMATORS = "coterie.rewards.config_advantages", "coterie.rewards.estimators"
register("advantage", "reinforce++", config=f"{_ADVANTAGES}:ReinforcePlusPlusConfig",
         impl=f"{_ESTIMATORS}:ReinforcePlusPlus",
         summary="whitened over the tokens of a role (REINFORCE++)")  # fmt: skip
register("advantage", "reinforce++_baseline", config=f"{_ADVANTAGES}:ReinforcePlusPlusBaselineConfig",
         impl=f"{_ESTIMATORS}:ReinforcePlusPlusBaseline",
         summary="less the group's mean, then whitened (REINFORCE++-baseline)")  # fmt: skip
register("advantage", "grpo", config=f"{_ADVANTAGES}:GrpoConfig", impl=f"{_ESTIMATORS}:Grpo",
         summary="less the group's mean, by its deviation (GRPO)")  # fmt: skip
register("advantage", "dr_grpo", config=f"{_ADVANTAGES}:DrGrpoConfig", impl=f"{_ESTIMATORS}:DrGrpo",
         summary="less the group's mean (Dr. GRPO)")  # fmt: skip
register("advantage", "rloo", config=f"{_ADVANTAGES}:RlooConfig", impl=f"{_ESTIMATORS}:Rloo",
         summary="less the mean of the others of the group (RLOO)")  # fmt: skip
register("advantage", "dr_mas", config=f"{_ADVANTAGES}:DrMasConfig", impl=f"{_ESTIMATORS}:Grpo",
         summary="GRPO for each agent by itself (Dr. MAS)")  # fmt: skip
register("advantage", "at_grpo", config=f"{_ADVANTAGES}:AtGrpoConfig", impl=f"{_ESTIMATORS}:Grpo",
         summary="GRPO for each agent and turn by itself (AT-GRPO)")  # fmt: skip
register("advantage", "gae", config=f"{_ADVANTAGES}:GaeConfig", impl=f"{_ESTIMATORS}:Gae",
         summary="by the values of a critic, token by token (PPO)")  # fmt: skip
register("advantage", "rae", config=f"{_ADVANTAGES}:RaeConfig", impl=f"{_ESTIMATORS}:Rae",
         summary="less a running mean of the role's rewards (SPIRAL)")  # fmt: skip

_TOKENS, _RULES = "coterie.rewards.credit.config_token", "coterie.rewards.credit.rules"
register("token_credit", "local_chunk", config=f"{_TOKENS}:LocalChunkConfig", impl=f"{_RULES}:LocalChunk",
         summary="tokens where phrases begin, by attention (preplan)")  # fmt: skip
register("token_credit", "global_anchor", config=f"{_TOKENS}:GlobalAnchorConfig", impl=f"{_RULES}:GlobalAnchor",
         summary="tokens that many later ones read, by attention (anchors)")  # fmt: skip
register("token_credit", "coupled", config=f"{_TOKENS}:CoupledConfig", impl=f"{_RULES}:Coupled",
         summary="anchors, and the tokens that introduce them")  # fmt: skip
register("token_credit", "entropy", config=f"{_TOKENS}:EntropyConfig", impl=f"{_RULES}:Entropy",
         summary="only the tokens of highest entropy (80/20)")  # fmt: skip
register("token_credit", "random", config=f"{_TOKENS}:RandomConfig", impl=f"{_RULES}:Random",
         summary="tokens drawn by lot: the control")  # fmt: skip
register("token_credit", "abc", config=f"{_TOKENS}:AbcConfig", impl=f"{_RULES}:Abc",
         summary="the reply's advantage, redistributed by attention (ABC)")  # fmt: skip
register("token_credit", "step_influence", config=f"{_TOKENS}:StepInfluenceConfig", impl=f"{_RULES}:StepInfluence",
         summary="steps that later steps look back to")  # fmt: skip
_VALUES = "coterie.rewards.credit.values"
register("token_credit", "vine", config=f"{_TOKENS}:VineConfig", impl=f"{_VALUES}:Vine",
         summary="steps by what replies earn that go on from them: Monte-Carlo values (VinePPO)")  # fmt: skip
register("token_credit", "spo", config=f"{_TOKENS}:SpoConfig", impl=f"{_VALUES}:Spo",
         summary="segments by what replies earn that go on from them (SPO, in a chain)")  # fmt: skip

_AGENT_CONFIGS, _AGENTS = "coterie.rewards.credit.config_agent", "coterie.rewards.credit.agent"
register("agent_credit", "equal", config=f"{_AGENT_CONFIGS}:EqualCreditConfig", impl=f"{_AGENTS}:Equal",
         summary="every agent gets as much")  # fmt: skip
register("agent_credit", "attention", config=f"{_AGENT_CONFIGS}:AttentionFlowConfig", impl=f"{_AGENTS}:AttentionFlow",
         summary="back from the answer, by the policies' attention to each other's words")  # fmt: skip
register("agent_credit", "psi", config=f"{_AGENT_CONFIGS}:PsiCreditConfig", impl=f"{_AGENTS}:Psi",
         summary="nearness of an agent's last word to all (SelfOrg); sees no verdict")  # fmt: skip
register("agent_credit", "leave_one_out", config=f"{_AGENT_CONFIGS}:LeaveOneOutCreditConfig", impl=f"{_AGENTS}:Replays",
         summary="what the result owes to each agent: replays without it")  # fmt: skip
register("agent_credit", "shapley", config=f"{_AGENT_CONFIGS}:ShapleyCreditConfig", impl=f"{_AGENTS}:Replays",
         summary="Shapley values of the result: replays of all coalitions; at most 14 agents")  # fmt: skip
register("agent_credit", "counterfactual", config=f"{_AGENT_CONFIGS}:CounterfactualCreditConfig",
         impl=f"{_AGENTS}:Replays",
         summary="what the result owes to an agent's messages: replays with them drawn anew (COMA)")  # fmt: skip
