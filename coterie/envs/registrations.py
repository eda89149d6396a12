"""What this package registers. Strings only."""

from coterie.registry import register

_BENCHMARKS = "coterie.envs.benchmarks"
register("benchmark", "reasoning_gym", config=f"{_BENCHMARKS}.config:ReasoningGymConfig",
         impl=f"{_BENCHMARKS}.reasoning_gym:ReasoningGym",
         summary="questions from any generator of reasoning-gym, without a network")  # fmt: skip
register("benchmark", "gsm8k", config=f"{_BENCHMARKS}.config:Gsm8kConfig", impl=f"{_BENCHMARKS}.gsm8k:Gsm8k",
         summary="grade-school word problems, from the hub or a folder")  # fmt: skip
register("benchmark", "svamp", config=f"{_BENCHMARKS}.config:SvampConfig", impl=f"{_BENCHMARKS}.svamp:Svamp",
         summary="word problems of one step, varied against shallow reading")  # fmt: skip
register("benchmark", "gsm_hard", config=f"{_BENCHMARKS}.config:GsmHardConfig", impl=f"{_BENCHMARKS}.gsm_hard:GsmHard",
         summary="gsm8k with large numbers")  # fmt: skip
register("benchmark", "aqua", config=f"{_BENCHMARKS}.config:AquaConfig", impl=f"{_BENCHMARKS}.aqua:Aqua",
         summary="algebra word problems with five options")  # fmt: skip
register("benchmark", "math500", config=f"{_BENCHMARKS}.config:Math500Config", impl=f"{_BENCHMARKS}.math500:Math500",
         summary="500 competition problems answered by a formula")  # fmt: skip
register("benchmark", "mmlu", config=f"{_BENCHMARKS}.config:MmluConfig", impl=f"{_BENCHMARKS}.mmlu:Mmlu",
         summary="knowledge of 57 subjects, four options")  # fmt: skip
register("benchmark", "gpqa", config=f"{_BENCHMARKS}.config:GpqaConfig", impl=f"{_BENCHMARKS}.gpqa:Gpqa",
         summary="graduate-level science, four options, from your own copy")  # fmt: skip
register("benchmark", "bbh", config=f"{_BENCHMARKS}.config:BbhConfig", impl=f"{_BENCHMARKS}.bbh:Bbh",
         summary="the 27 tasks of BIG-Bench Hard")  # fmt: skip
register("benchmark", "chess", config=f"{_BENCHMARKS}.config:ChessConfig", impl=f"{_BENCHMARKS}.chess:Chess",
         summary="chess move validity, from BIG-bench's file")  # fmt: skip
register("benchmark", "custom", config=f"{_BENCHMARKS}.config:CustomConfig", impl=f"{_BENCHMARKS}.custom:Custom",
         summary="questions of your own: any file of rows or dataset on the hub")  # fmt: skip
register("benchmark", "deceptionbench", config=f"{_BENCHMARKS}.config:DeceptionBenchConfig",
         impl=f"{_BENCHMARKS}.deceptionbench:DeceptionBench",
         summary="scenarios that tempt to deceive, judged by a model, from your own copy")  # fmt: skip
register("benchmark", "humaneval", config=f"{_BENCHMARKS}.config:HumanEvalConfig",
         impl=f"{_BENCHMARKS}.humaneval:HumanEval",
         summary="Python functions to complete, judged by tests in the sandbox")  # fmt: skip
register("benchmark", "mbpp", config=f"{_BENCHMARKS}.config:MbppConfig", impl=f"{_BENCHMARKS}.mbpp:Mbpp",
         summary="short Python functions from a sentence, judged by tests in the sandbox")  # fmt: skip
register("benchmark", "subset", config=f"{_BENCHMARKS}.config:SubsetConfig", impl=f"{_BENCHMARKS}.subset:Subset",
         summary="some of another benchmark's tasks, such as those a training held out")  # fmt: skip
register("env", "quad_swarm_v0", config="coterie.envs.config:QuadSwarmConfig", impl="coterie.envs.worlds:make_swarm",
         summary="quadrotor swarms among obstacles, many at once")  # fmt: skip
register("env", "pettingzoo", config="coterie.envs.config:PettingZooConfig", impl="coterie.envs.worlds:make_pettingzoo",
         summary="copies of any environment with PettingZoo's parallel interface")  # fmt: skip
