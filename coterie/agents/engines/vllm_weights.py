"""What is published to a vLLM engine: put in between two steps, and looked at in the workers afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from vllm.config.lora import MaxLoRARanks
from vllm.lora.request import LoRARequest
from vllm.v1.engine.llm_engine import LLMEngine

from coterie import rng
from coterie.agents.engines import models, weights
from coterie.agents.engines.weights import Adapter, Checkpoint
from coterie.errors import EngineError
from coterie.types import Weights

_PROBES = 8


class Publisher:
    """Publishes to one `LLMEngine`, whose requests have all ended, and knows its adapters by name.

    Args:
        folder: What the engine was started with: a folder or a hub id.
        most: How many adapters there may be.
        rank: Their highest rank.
    """

    def __init__(self, folder: str, most: int, rank: int) -> None:
        self._folder, self._most, self._rank = folder, most, rank
        self._adapters: dict[str, tuple[LoRARequest, Weights]] = {}
        self._numbers = itertools.count(1)
        self._why_broken = ""

    def request(self, adapter: str) -> LoRARequest | None:
        """What a request of this adapter carries. Raises EngineError if nobody can speak by it."""
        if self._why_broken:
            raise weights.broken(self._why_broken)
        if adapter and adapter not in self._adapters:
            raise weights.unknown(adapter, self._adapters)
        return self._adapters[adapter][0] if adapter else None

    def publish(self, engine: LLMEngine, wanted: Weights) -> None:
        """As `base.Publishable.publish`."""
        if wanted.adapter:
            self._publish_adapter(engine, wanted)
        else:
            self._publish_model(engine, wanted)
        engine.reset_prefix_cache()

    def _publish_model(self, engine: LLMEngine, wanted: Weights) -> None:
        found = Checkpoint(wanted.folder)
        if started := models.files_of(self._folder):
            found.check_fit(Checkpoint(str(started)).shapes)
        self._why_broken = f"the publication of {wanted.folder} failed"
        try:
            engine.collective_rpc("reload_weights", kwargs={"weights_path": wanted.folder})
            engine.collective_rpc(refresh_heads)
        except Exception as cause:
            raise weights.unreadable(wanted.folder, cause) from cause
        names = weights.choose(found.shapes, wanted.version)
        self._look(engine, find_wrong, (wanted.folder, names, wanted.version), wanted)
        self._why_broken = ""
        # vLLM drops all adapters when it reloads.
        for _, adapter in list(self._adapters.values()):
            self._publish_adapter(engine, adapter)

    def _publish_adapter(self, engine: LLMEngine, wanted: Weights) -> None:
        found = Adapter(wanted.folder, self._rank)
        if wanted.adapter not in self._adapters and len(self._adapters) == self._most:
            raise weights.too_many(wanted.adapter, self._most)
        if wanted.adapter in self._adapters:
            engine.remove_lora(self._adapters.pop(wanted.adapter)[0].lora_int_id)
        number = next(self._numbers)
        # A name and a number of its own: vLLM's caches know adapters by them.
        request = LoRARequest(f"{wanted.adapter}#{number}", number, wanted.folder)
        try:
            engine.add_lora(request)
        except Exception as cause:
            # Whatever vLLM raises, it is about this folder: the engine goes on without the adapter.
            raise weights.misfit(wanted.folder, str(cause).split("\n")[0][:300]) from cause
        names = weights.choose(found.shapes, wanted.version)
        try:
            self._look(engine, find_wrong_in_adapter, (wanted.folder, self._rank, names, number), wanted)
        except EngineError:
            engine.remove_lora(number)
            raise
        self._adapters[wanted.adapter] = (request, wanted)

    def _look(self, engine: LLMEngine, find: Callable[..., Any], args: tuple[Any, ...], wanted: Weights) -> None:
        for number, wrong in engine.collective_rpc(find, args=args):
            if wrong:
                raise weights.mismatch(wrong, wanted.folder)
            if not number:
                raise weights.misfit(wanted.folder, "none of its tensors could be found in the engine")


def refresh_heads(worker: Any) -> None:
    """Pack heads anew that share the embedding's tensor.

    vLLM 0.32 keeps its own packed copy for the CPU's kernels, and `reload_weights` renews it only for tensors that a
    folder holds under the head's name.
    """
    for module in worker.model_runner.get_model().modules():
        if hasattr(module, "cpu_linear") and type(module).__name__ == "ParallelLMHead":
            module.quant_method.process_weights_after_loading(module)


def find_wrong(worker: Any, folder: str, names: Sequence[str], version: int) -> tuple[int, str]:
    """In a worker: how many of these tensors it has, and the first that is not what stands in the folder.

    Of what tensor-parallel ranks share, only tensors that each holds whole are looked at.
    """
    model, found, number = worker.model_runner.get_model(), Checkpoint(folder), 0
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        for module, row in _holders(model, modules, name):
            if _is_split(module):
                number += 1
                continue
            attribute, expected = name.rpartition(".")[2], found.read(name)
            columns = torch.arange(1)
            if expected.ndim == 2:
                drawn = rng.stream(0, "probed", version, name).permutation(expected.shape[1])[:_PROBES]
                columns = torch.from_numpy(drawn)
            held, some = _held(module, attribute, columns, worker.model_runner.dtype)
            part = held[row : row + expected.shape[0]]
            wanted = expected[:, columns] if some else expected
            if part.shape != wanted.shape or not torch.equal(part, wanted.to(part.device, part.dtype)):
                return number, name
            number += 1
    return number, ""


def _holders(model: Any, modules: dict[str, Any], name: str) -> list[tuple[Any, int]]:
    """The modules that compute with a tensor of a checkpoint, each with the row at which it begins there."""
    path = name.rpartition(".")[0]
    found = [_locate(modules, path, model.packed_modules_mapping)]
    if "embed_tokens" in path and getattr(model.config, "tie_word_embeddings", False):
        found.append((modules.get("lm_head"), 0))
    return [
        (_base(module), sum(getattr(_base(module), "output_sizes", [])[:index]))
        for module, index in found
        if module is not None
    ]


def _locate(modules: dict[str, Any], path: str, packed: dict[str, list[str]]) -> tuple[Any, int]:
    """The module that holds what a checkpoint calls `path`, and which of its parts that is."""
    parent, _, leaf = path.rpartition(".")
    for fused, parts in packed.items():
        if leaf in parts and (module := modules.get(f"{parent}.{fused}")) is not None:
            return module, parts.index(leaf)
    return modules.get(path), 0


def _base(module: Any) -> Any:
    return getattr(module, "base_layer", module)


def _is_split(module: Any) -> bool:
    """Whether tensor-parallel ranks hold a part of it each."""
    return bool(getattr(_base(module), "tp_size", 1) > 1)


def _held(module: Any, attribute: str, columns: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, bool]:
    """What a module computes with, or, if that is packed for the CPU's kernels, some columns of it (True).

    A packed weight is read by multiplying it with unit vectors, which is exact.
    """
    tensor = getattr(module, attribute)
    is_lookup = type(module).__name__ == "VocabParallelEmbedding"
    if attribute != "weight" or is_lookup or not hasattr(module, "cpu_linear"):
        return tensor, False
    units = torch.zeros(len(columns), getattr(module, "input_size", None) or module.embedding_dim, dtype=dtype)
    units[torch.arange(len(columns)), columns] = 1
    return module.quant_method.apply(module, units).T, True


def find_wrong_in_adapter(worker: Any, folder: str, rank: int, names: Sequence[str], number: int) -> tuple[int, str]:
    """As `find_wrong`, of an adapter's tensors in the slot where requests of this number find them."""
    manager, found = worker.model_runner.lora_manager._adapter_manager, Adapter(folder, rank)
    slot, located = manager.lora_index_to_id.index(number), 0
    for name in names:
        path, factor = found.layer_of(name)
        module, part = _locate(manager.modules, path, manager.packed_modules_mapping)
        if module is None:
            continue
        if _is_split(module):
            located += 1
            continue
        held = (module.lora_a_stacked if factor == "lora_A" else module.lora_b_stacked)[part][slot, 0]
        wanted = found.read(name).to(held.dtype)
        if factor == "lora_B":
            # vLLM keeps the second factor scaled.
            wanted = wanted * found.scaling
        if not torch.equal(held[: wanted.shape[0], : wanted.shape[1]], wanted.to(held.device)):
            return located, name
        located += 1
    return located, ""


def engine_rank(rank: int) -> int:
    """The smallest highest rank that vLLM can be started with and that is no less than this."""
    return min(int(known) for known in get_args(MaxLoRARanks) if known >= rank)
