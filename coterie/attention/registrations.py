"""What this package registers. Strings only."""

from coterie.registry import register

_MECHANISMS = "coterie.attention.mechanisms"
register("attention", "alibi", impl=f"{_MECHANISMS}.bias:Alibi",
         summary="ALiBi: a penalty linear in the distance back, as factors of rank 2")  # fmt: skip
register("attention", "squared_distance", impl=f"{_MECHANISMS}.bias:SquaredDistance",
         summary="a penalty on squared distance, its strength learned by head, as factors of rank n + 2")  # fmt: skip
register("attention", "svd_bias", impl=f"{_MECHANISMS}.bias:SvdBias",
         summary="a table of relative positions, cut to its largest singular values")  # fmt: skip
register("attention", "learned_bias", impl=f"{_MECHANISMS}.bias:LearnedBias",
         summary="a bias whose factors are small networks of the hidden states")  # fmt: skip
register("attention", "gated", impl=f"{_MECHANISMS}.gate:Gated",
         summary="Gated Attention: a sigmoid gate from the hidden states on each head's output")  # fmt: skip
register("attention", "kdgqa", impl=f"{_MECHANISMS}.head_maps:KeyDriven",
         summary="KDGQA: key heads with longer keys serve more query heads, counted in every call")  # fmt: skip
register("attention", "dgqa", impl=f"{_MECHANISMS}.head_maps:Dynamic",
         summary="DGQA: key heads whose keys change most serve more query heads, counted in training")  # fmt: skip
register("attention", "pgqa", impl=f"{_MECHANISMS}.head_maps:Perturbed",
         summary="PGQA: grouped-query attention less Gaussian noise like each row of its output")  # fmt: skip
register("attention", "moh", impl=f"{_MECHANISMS}.mixture:MixtureOfHeads",
         summary="Mixture of heads: a router picks heads for each token, and only those are computed")  # fmt: skip
register("attention", "collapsed", impl=f"{_MECHANISMS}.scores:Collapsed",
         summary="scores of hidden states by one full matrix for each head, without queries and keys")  # fmt: skip
register("attention", "symmetric", impl=f"{_MECHANISMS}.scores:Symmetric",
         summary="symmetric scores: one projection of the hidden states for queries and keys alike")  # fmt: skip
register("attention", "lamic", impl=f"{_MECHANISMS}.isolation:Lamic",
         summary="LAMIC: text, regions and references of a subject see each other by a table of roles")  # fmt: skip
register("attention", "isolation", impl=f"{_MECHANISMS}.isolation:Isolation",
         summary="IR-Diffusion: subjects do not see each other, the background sees and is seen")  # fmt: skip
register("attention", "composite", impl=f"{_MECHANISMS}.isolation:Composite",
         summary="EE-MLLM: visual tokens see none but themselves, text sees all before it")  # fmt: skip
register("attention", "group_pose", impl=f"{_MECHANISMS}.groups:GroupPose",
         summary="Group Pose: parts of one instance, or the same part of all instances")  # fmt: skip
register("attention", "batch_group", impl=f"{_MECHANISMS}.groups:BatchGroup",
         summary="Chronos-2: series of one group see each other at each moment, over the batch")  # fmt: skip
register("attention", "hop_wise", impl=f"{_MECHANISMS}.graph:HopWise",
         summary="HopFIR: one key for each number of hops, the mean of the nodes that far away")  # fmt: skip
