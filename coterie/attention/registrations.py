"""What this package registers. Strings only."""

from coterie.registry import register

_MECHANISMS = "coterie.attention.mechanisms"
register("attention", "alibi", impl=f"{_MECHANISMS}.bias:Alibi",
         summary="a penalty linear in the distance back, as factors of rank 2")  # fmt: skip
