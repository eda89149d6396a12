"""What this package registers. Strings only."""

from coterie.registry import register

_ENGINES = "coterie.agents.engines"
register("engine", "vllm", config=f"{_ENGINES}.config:VllmConfig", impl=f"{_ENGINES}.vllm:VllmEngine",
         summary="vLLM in this process: continuous batching, prefix caching (the default where installed)")  # fmt: skip
register("engine", "transformers", config=f"{_ENGINES}.config:TransformersConfig",
         impl=f"{_ENGINES}.transformers:TransformersEngine",
         summary="transformers in this process: any platform")  # fmt: skip
register("engine", "auto", config=f"{_ENGINES}.config:AutoConfig", impl=f"{_ENGINES}.auto:build",
         summary="vllm where it is installed, else transformers; says which")  # fmt: skip
register("engine", "openai", config=f"{_ENGINES}.config:OpenAIConfig", impl=f"{_ENGINES}.openai:OpenAIEngine",
         summary="any OpenAI-compatible server")  # fmt: skip
register("engine", "python", config=f"{_ENGINES}.config:PythonConfig", impl=f"{_ENGINES}.python:PythonEngine",
         summary="no model: runs the code of the last message in a sandbox")  # fmt: skip
register("model", "smollm2-135m", impl=f"{_ENGINES}.models:smollm2_135m",
         summary="SmolLM2-135M-Instruct, installed with Coterie; needs no hub")  # fmt: skip
register("model", "coterie-tiny", impl="coterie.agents.tiny:folder",
         summary="a small Llama that adds, evaluates and scores: learning on two cores (make tiny)")  # fmt: skip
register("embedder", "minilm", impl="coterie.agents.embedders:minilm",
         summary="all-MiniLM-L6-v2, installed with Coterie; needs no hub")  # fmt: skip
register("persona", "easy_going", impl="coterie.agents.personas:EASY_GOING",
         summary="weighs other views and can be persuaded (MachineSoM)")  # fmt: skip
register("persona", "overconfident", impl="coterie.agents.personas:OVERCONFIDENT",
         summary="sure of itself, tries to persuade (MachineSoM)")  # fmt: skip

_LEARNING = "coterie.agents.learning"
register("learner", "ippo", config=f"{_LEARNING}.config:IppoConfig", impl=f"{_LEARNING}.ppo:PPOLearner",
         summary="independent PPO: one policy, a critic of what each agent sees")  # fmt: skip
register("learner", "mappo", config=f"{_LEARNING}.config:MappoConfig", impl=f"{_LEARNING}.ppo:PPOLearner",
         summary="multi-agent PPO: one policy, a critic of the whole team")  # fmt: skip
register("learner", "policy_gradient", config=f"{_LEARNING}.llm_config:PolicyGradientConfig",
         impl=f"{_LEARNING}.sharded:make_learner",
         summary="language models learn from what their turns were worth (REINFORCE++, GRPO, ...)")  # fmt: skip
register("loss", "ppo", config=f"{_LEARNING}.llm_config:PPOLossConfig", impl=f"{_LEARNING}.surrogates:PPOLoss",
         summary="the clipped surrogate, token by token: PPO, DAPO's higher bound, a dual clip")  # fmt: skip
register("loss", "gspo", config=f"{_LEARNING}.llm_config:GSPOLossConfig", impl=f"{_LEARNING}.surrogates:GSPOLoss",
         summary="the clipped surrogate with one ratio per reply")  # fmt: skip
register("loss", "cispo", config=f"{_LEARNING}.llm_config:CISPOLossConfig", impl=f"{_LEARNING}.surrogates:CISPOLoss",
         summary="log-probabilities weighted by a clipped ratio: every token keeps its gradient")  # fmt: skip
_SWARM = "coterie.agents.swarm"
register("policy", "paper", config=f"{_SWARM}.config:PaperConfig", impl=f"{_SWARM}.networks:Actor",
         summary="neighbours as one token, obstacles as another, four heads: what Huang et al. (2024) ran")  # fmt: skip
register("policy", "attention", config=f"{_SWARM}.config:AttentionConfig", impl=f"{_SWARM}.networks:Actor",
         summary="attends to each neighbour, however many, and to obstacles")  # fmt: skip
register("policy", "mechanism", config=f"{_SWARM}.config:MechanismPolicyConfig", impl=f"{_SWARM}.networks:Actor",
         summary="oneself, neighbours and obstacles attend by any of `coterie ls attention`")  # fmt: skip
register("policy", "deepsets", config=f"{_SWARM}.config:DeepSetsConfig", impl=f"{_SWARM}.networks:Actor",
         summary="the mean over neighbours, however many")  # fmt: skip
register("policy", "mlp", config=f"{_SWARM}.config:MlpConfig", impl=f"{_SWARM}.networks:Actor",
         summary="one perceptron; the one for any other world")  # fmt: skip
