"""Models that learn: loaded by transformers, with what of them is trained for each policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from coterie import rng
from coterie.agents.learning import exports
from coterie.agents.learning.forcing import TeacherForcing
from coterie.agents.learning.llm_settings import LLMSettings, LoraSettings
from coterie.agents.learning.ranks import Ranks, whole
from coterie.errors import EnvironmentMissing, LearningError


class Base(Protocol):
    """A model in memory and the policies that share it."""

    teacher: TeacherForcing

    def shard(self) -> None:
        """Leave this process its part of the weights."""
        ...

    def parameters(self, policy: str) -> dict[str, nn.Parameter]:
        """What is trained of a policy, by the names that its exported file has."""
        ...

    def acting(self, policy: str) -> AbstractContextManager[None]:
        """In here the model is this policy."""
        ...

    def reference(self) -> AbstractContextManager[TeacherForcing]:
        """In here what is given is the model as it was before training."""
        ...

    def export(self, policy: str, folder: Path) -> None:
        """Write what engines load; the first of several processes does."""
        ...


def pick_device(device: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(settings: LLMSettings, device: torch.device) -> torch.dtype:
    """What the model computes in.

    `auto` is float32 on any CPU, also where `models.cpu_dtype` has engines take bfloat16: gradients are kept
    exact there, and `mismatch_kl` tells how far the two are apart.
    """
    if settings.precision != "auto":
        return getattr(torch, settings.precision)  # type: ignore[no-any-return]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load_model(folder: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A causal language model without dropout, in training mode (which checkpointing of activations asks for).

    Raises:
        EnvironmentMissing: It cannot be loaded.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    except (OSError, ValueError) as cause:
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise EnvironmentMissing(f"cannot load the model to train: {first[:300]}", where=folder,
                                 remedy="name a folder with config.json and weights") from cause  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model.to(device).train()


def make(
    folder: str, policies: Sequence[str], settings: LLMSettings, device: torch.device, dtype: torch.dtype, seed: int,
    ranks: Ranks,
) -> Base:  # fmt: skip
    """The model with what `settings` let each policy train.

    Raises:
        LearningError: Several policies shall train all weights of one model.
        EnvironmentMissing: The model cannot be loaded.
    """
    if settings.lora is not None:
        return AdapterBase(load_model(folder, device, dtype), folder, policies, settings.lora, seed, ranks)
    if len(policies) != 1:
        raise LearningError(
            f"{len(policies)} policies cannot train all weights of one model", where="learning.lora",
            remedy="set learning.lora, or make a learner for each policy",
        )  # fmt: skip
    # Small steps are lost in bfloat16: the model computes in it, but its weights are not kept in it.
    return FullBase(load_model(folder, device, torch.float32 if dtype == torch.bfloat16 else dtype), folder, ranks)


def _layers(model: Any) -> list[nn.Module]:
    """What repeats: the blocks of the decoder."""
    return [module for child in model.get_decoder().children() if isinstance(child, nn.ModuleList) for module in child]


class FullBase:
    """All weights of a model, for one policy."""

    def __init__(self, model: Any, folder: str, ranks: Ranks) -> None:
        self.teacher, self._folder, self._ranks = TeacherForcing(model), folder, ranks
        self._weight = next(model.parameters())
        self._frozen: TeacherForcing | None = None

    def shard(self) -> None:
        self._ranks.shard(self.teacher, _layers(self.teacher.model))

    def parameters(self, policy: str) -> dict[str, nn.Parameter]:
        return dict(self.teacher.model.named_parameters())

    def acting(self, policy: str) -> AbstractContextManager[None]:
        return nullcontext()

    def reference(self) -> AbstractContextManager[TeacherForcing]:
        if self._frozen is None:
            model = load_model(self._folder, self._weight.device, self._weight.dtype).requires_grad_(False)
            self._frozen = TeacherForcing(model)
            self._ranks.shard(self._frozen, _layers(model))
        return nullcontext(self._frozen)

    def export(self, policy: str, folder: Path) -> None:
        tensors = {name: whole(tensor) for name, tensor in self.teacher.model.state_dict().items()}
        if self._ranks.rank == 0:
            exports.write_model(folder, self.teacher.model, tensors, self._folder)


class AdapterBase:
    """A frozen model with a low-rank adapter for each policy."""

    def __init__(
        self, model: Any, folder: str, policies: Sequence[str], settings: LoraSettings, seed: int, ranks: Ranks
    ) -> None:
        from peft import LoraConfig, PeftModel

        self.teacher, self._ranks = TeacherForcing(model), ranks
        # A module's name holds no dot, and none of these is part of another name.
        self._names = {policy: f"coterie{number}" for number, policy in enumerate(policies)}
        self._config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets) or "all-linear",
            lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", base_model_name_or_path=folder,
        )  # fmt: skip
        first, *others = self._names.values()
        with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; we draw again, below
            self._wrapped = PeftModel(model, self._config, adapter_name=first)
            for name in others:
                self._wrapped.add_adapter(name, self._config)
        for policy in policies:
            _draw(self.parameters(policy), seed, policy)
        self._let_all_learn()

    def _let_all_learn(self) -> None:
        # peft lets one adapter at a time have a gradient. The others are in no graph, and processes that share weights
        # must know from the start which ones can have one.
        for policy in self._names:
            for parameter in self.parameters(policy).values():
                parameter.requires_grad_(True)

    def shard(self) -> None:
        self._ranks.shard(self.teacher, _layers(self.teacher.model))

    def parameters(self, policy: str) -> dict[str, nn.Parameter]:
        part = f".{self._names[policy]}."
        return {n.replace(part, "."): p for n, p in self._wrapped.named_parameters() if part in n}

    @contextmanager
    def acting(self, policy: str) -> Iterator[None]:
        self._wrapped.set_adapter(self._names[policy])
        self._let_all_learn()
        yield

    @contextmanager
    def reference(self) -> Iterator[TeacherForcing]:
        with self._wrapped.disable_adapter():
            yield self.teacher
        self._let_all_learn()

    def export(self, policy: str, folder: Path) -> None:
        config = json.loads(json.dumps(self._config.to_dict(), default=sorted)) | {"inference_mode": True}
        tensors = {name: whole(tensor) for name, tensor in self.parameters(policy).items()}
        if self._ranks.rank == 0:
            exports.write_adapter(folder, tensors, config)


@torch.no_grad()
def _draw(parameters: Mapping[str, Tensor], seed: int, policy: str) -> None:
    """Uniform numbers for the first matrix, as peft's, but a function of the seed; the second stays zero."""
    for name, parameter in parameters.items():
        if "lora_A" in name:
            drawn = rng.stream(seed, "lora", policy, name).random(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy((2 * drawn - 1) / parameter.shape[1] ** 0.5))
