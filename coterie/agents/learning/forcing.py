"""The teacher-forced pass: log-probabilities of replies under a causal language model of transformers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coterie.agents.learning.packing import MicroBatch
from coterie.errors import LearningError

_LOGITS_AT_ONCE = 1 << 24
"""Numbers of a tensor [tokens, vocabulary]; more of them are made, used and made again in the backward pass."""


class Forced(NamedTuple):
    """What a pass tells of the M tokens of its replies.

    Attributes:
        log_prob: Of each, float32 [M].
        entropy: Of what it was drawn from, without gradient, float32 [M]; empty if it is not wanted.
        hidden: The last hidden state, which it was drawn by, [M, width].

    In float64 models all are float64.
    """

    log_prob: Tensor
    entropy: Tensor
    hidden: Tensor


class TeacherForcing(nn.Module):
    """A model and its head, apart: logits are made only where a token of a reply follows, and a chunk at a time."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: MicroBatch, wants_entropy: bool = False) -> Forced:
        """One pass over all turns of a batch."""
        hidden = self.model.get_decoder()(
            input_ids=batch.ids, attention_mask=None, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        hidden = hidden.flatten(0, 1)[batch.before]
        size = max(_LOGITS_AT_ONCE // self.model.config.get_text_config().vocab_size, 1)
        parts = list(zip(torch.split(hidden, size), torch.split(batch.targets, size), strict=True))
        if len(parts) == 1 or not hidden.requires_grad:
            found = [self._read(*part, wants_entropy) for part in parts]
        else:
            found = [checkpoint(self._read, *part, wants_entropy, use_reentrant=False) for part in parts]
        log_probs, entropies = zip(*found, strict=True) if found else ((hidden[:0, 0],), (hidden[:0, 0],))
        return Forced(torch.cat(log_probs), torch.cat(entropies), hidden)

    def _read(self, hidden: Tensor, targets: Tensor, wants_entropy: bool) -> tuple[Tensor, Tensor]:
        logits = self.model.get_output_embeddings()(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        log_probs = logits.log_softmax(-1)
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1) if wants_entropy else logits[:0, 0]
        return log_probs.gather(1, targets[:, None])[:, 0], entropy


@torch.no_grad()
def check(forcing: TeacherForcing, device: torch.device) -> None:
    """Whether the model's logits are its head times its last hidden states, and turns in one row keep apart.

    Raises:
        LearningError: They are not, or do not: some models scale or bend their logits, or carry a state along.
    """
    model, size = forcing.model, forcing.model.config.get_text_config().vocab_size
    ids = torch.arange(16, device=device).remainder(size)[None]
    expected = model(input_ids=ids, use_cache=False).logits.float()
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    found = model.get_output_embeddings()(hidden).float()
    places = torch.arange(8, device=device).repeat(2)[None]
    pairs = [torch.cat([before, ids[:, 8:]], 1) for before in (ids[:, :8], ids[:, :8].flip(1))]
    one, other = (
        forcing(MicroBatch(both, places, torch.arange(8, 15, device=device), both[0, 9:], (0,))).log_prob
        for both in pairs
    )
    # Where a kernel rounds to, bfloat16 included, does not depend on what is masked.
    is_bent = float((found - expected).abs().max()) > 0.02 * float(expected.abs().max())
    if is_bent or float((one - other).abs().max()) > 1e-3:
        raise LearningError(
            "this model bends its logits" if is_bent else "turns that stand in one row of this model see each other",
            remedy="train a model with a plain linear head" if is_bent else "train a model with plain attention",
        )
