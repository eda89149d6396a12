"""The weights of a model of transformers that goes on running: replaced, given LoRA adapters, and looked at."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from coterie.agents.engines import weights
from coterie.agents.engines.weights import Adapter, Checkpoint
from coterie.types import Weights

_BASE = ".base_layer."


class LiveWeights:
    """A model's own weights and its LoRA adapters (peft's layers), by the names they were published under.

    Args:
        model: A causal language model of transformers.
        most: How many adapters there may be.
        rank: Their highest rank.
    """

    def __init__(self, model: Any, most: int, rank: int) -> None:
        self._model, self._most, self._rank = model, most, rank
        # peft keeps adapters in a ModuleDict, whose keys hold no dots.
        self._layers: dict[str, str] = {}
        self._forms: dict[str, tuple[Any, ...]] = {}
        self._tuner: Any = None
        self._why_broken = ""

    @torch.no_grad()
    def publish(self, wanted: Weights) -> None:
        """As `base.Publishable.publish`."""
        if wanted.adapter:
            self._publish_adapter(wanted)
        else:
            self._publish_model(wanted)

    def _publish_model(self, wanted: Weights) -> None:
        held = {name.replace(_BASE, "."): p for name, p in self._model.named_parameters() if ".lora_" not in name}
        found = Checkpoint(wanted.folder)
        found.check_fit({name: tuple(parameter.shape) for name, parameter in held.items()})
        self._why_broken = f"the publication of {wanted.folder} failed"
        for name in sorted(held):
            held[name].copy_(found.read(name))
        for name in weights.choose(held, wanted.version):
            if not _equal(held[name], found.read(name)):
                raise weights.mismatch(name, wanted.folder)
        self._why_broken = ""

    def _publish_adapter(self, wanted: Weights) -> None:
        found = Adapter(wanted.folder, self._rank)
        if wanted.adapter not in self._layers and len(self._layers) == self._most:
            raise weights.too_many(wanted.adapter, self._most)
        name = self._make_room(wanted, found)
        try:
            for tensor in sorted(found.shapes):
                factor = self._factor(found, tensor, name)
                factor.weight = torch.nn.Parameter(
                    found.read(tensor).to(self._model.device, self._model.dtype), requires_grad=False
                )
            for tensor in weights.choose(found.shapes, wanted.version):
                if not _equal(self._factor(found, tensor, name).weight, found.read(tensor)):
                    raise weights.mismatch(tensor, wanted.folder)
        except Exception:
            self._drop(wanted.adapter)
            raise

    def _make_room(self, wanted: Weights, found: Adapter) -> str:
        """The name that peft knows an adapter by, whose layers are there: new ones, if their form has changed."""
        form = (found.rank, found.scaling, tuple(sorted(found.shapes.items())))
        if self._forms.get(wanted.adapter) != form:
            self._drop(wanted.adapter)
            self._layers[wanted.adapter] = self._inject(found)
            self._forms[wanted.adapter] = form
        return self._layers[wanted.adapter]

    def _inject(self, found: Adapter) -> str:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        name = next(f"number{n}" for n in range(self._most) if f"number{n}" not in self._layers.values())
        kept = {key: found.settings[key] for key in ("r", "lora_alpha", "use_rslora") if key in found.settings}
        layers = sorted({found.layer_of(tensor)[0] for tensor in found.shapes})
        config = LoraConfig(**kept, target_modules=layers, inference_mode=True)
        try:
            # Empty layers: drawing their first weights would move torch's global generator.
            if self._tuner is None:
                self._tuner = LoraModel(self._model, config, name, low_cpu_mem_usage=True)
            else:
                self._tuner.peft_config[name] = config
                self._tuner.inject_adapter(self._model, name, low_cpu_mem_usage=True)
        except ValueError as cause:
            raise weights.misfit(found.folder, str(cause).splitlines()[0]) from cause
        self._model.eval()
        return name

    def _factor(self, found: Adapter, tensor: str, name: str) -> Any:
        """The layer of peft that holds a tensor of an adapter's folder."""
        path, kind = found.layer_of(tensor)
        try:
            factor = self._model.get_submodule(f"{path}.{kind}.{name}")
        except AttributeError as cause:
            raise weights.misfit(found.folder, f"the model has no layer for {tensor}") from cause
        if tuple(factor.weight.shape) != found.shapes[tensor]:
            shapes = f"{found.shapes[tensor]}, not {tuple(factor.weight.shape)}"
            raise weights.misfit(found.folder, f"{tensor} is {shapes}")
        return factor

    def _drop(self, adapter: str) -> None:
        self._forms.pop(adapter, None)
        if (name := self._layers.pop(adapter, None)) is not None:
            self._tuner.delete_adapter(name)

    def check(self, adapter: str) -> None:
        """Raise EngineError unless the model can speak by this adapter (empty: by itself)."""
        if self._why_broken:
            raise weights.broken(self._why_broken)
        if adapter and adapter not in self._layers:
            raise weights.unknown(adapter, self._layers)

    @contextlib.contextmanager
    def speaking(self, adapters: Sequence[str]) -> Iterator[list[str]]:
        """While inside, each row of a batch is computed with its adapter, or by the model itself if that is empty.

        Yields:
            A word for each row, to be kept in step with the batch where rows leave it.

        Raises:
            EngineError: as `check`.
        """
        for adapter in {*adapters, ""}:
            self.check(adapter)
        # peft's name for rows without an adapter.
        rows = [self._layers.get(adapter, "__base__") for adapter in adapters]
        with contextlib.ExitStack() as stack:
            if any(adapters):
                self._tuner.enable_adapter_layers()
                for layer in self._tuned():
                    hook = functools.partial(_name_rows, rows)
                    stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            elif self._tuner is not None:
                self._tuner.disable_adapter_layers()
            yield rows

    def _tuned(self) -> list[Any]:
        from peft.tuners.lora import LoraLayer

        return [module for module in self._model.modules() if isinstance(module, LoraLayer)]


def _name_rows(rows: list[str], _: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": rows}


def _equal(held: Tensor, written: Tensor) -> bool:
    return torch.equal(held, written.to(held.device, held.dtype))
