"""Weights on their way into an engine: the folder they come in, and which tensors are looked at afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coterie import rng
from coterie.agents.engines.base import Publishable
from coterie.errors import EngineError
from coterie.types import EncodedPrompt, Weights

if TYPE_CHECKING:
    from torch import Tensor

_LOOKED_AT = 12
_ENDS = ("embed", "lm_head")
_FACTORS = ("lora_A", "lora_B")
_ADAPTER = ("adapter_config.json", "adapter_model*.safetensors")
_MODEL = ("config.json", "model*.safetensors")


class Checkpoint:
    """The tensors of a folder as transformers or, of an adapter, peft writes it: safetensors, read one by one.

    Attributes:
        folder: Where it is.
        settings: What its `config.json` or `adapter_config.json` says.
        shapes: Of each tensor, by the name it has in the files.

    Raises:
        EngineError: there is no such folder, or no such files in it.
    """

    def __init__(self, folder: str, is_adapter: bool = False) -> None:
        from safetensors import SafetensorError, safe_open

        config, pattern = _ADAPTER if is_adapter else _MODEL
        self.folder = folder
        self._files: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        try:
            self.settings: dict[str, Any] = json.loads((Path(folder) / config).read_text())
            for path in sorted(Path(folder).glob(pattern)):
                file: Any = safe_open(path, framework="pt")
                for name in file.keys():  # noqa: SIM118  # it is no mapping
                    self._files[name] = file
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())
        except (OSError, ValueError, SafetensorError) as cause:
            raise unreadable(folder, cause) from cause
        if not self.shapes:
            raise unreadable(folder, f"there is no {pattern}")

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the dtype it was written in."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def check_fit(self, held: dict[str, tuple[int, ...]]) -> None:
        """Compare with the shapes that an engine holds, by name.

        A head that is tied to the embedding may be in the folder and not in the engine.

        Raises:
            EngineError: a tensor is missing, is too many, or has another shape.
        """
        for name in sorted(self.shapes.keys() | held.keys()):
            ours, theirs = self.shapes.get(name), held.get(name)
            if ours != theirs and not (name == "lm_head.weight" and theirs is None and self._is_tied):
                raise misfit(self.folder, f"{name} is {_shape(ours)} there and {_shape(theirs)} in the engine")

    @property
    def _is_tied(self) -> bool:
        return bool(self.settings.get("tie_word_embeddings", True))


class Adapter(Checkpoint):
    """A LoRA adapter's tensors, and what scales their product.

    Attributes:
        rank: Of its two factors.
        scaling: By which the product of the factors is multiplied.

    Raises:
        EngineError: as a checkpoint; also if it is no LoRA adapter, or one that not every engine here reads (DoRA,
            ranks or scales by layer, biases, whole modules), or of a higher rank than `most`.
    """

    def __init__(self, folder: str, most: int) -> None:
        super().__init__(folder, is_adapter=True)
        kind, rank = self.settings.get("peft_type"), self.settings.get("r")
        unread = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
        others = [name for name in unread if self.settings.get(name)]
        if kind != "LORA" or not isinstance(rank, int) or others or self.settings.get("bias", "none") != "none":
            what = f"{kind} with {', '.join(others) or 'biases'}"
            raise misfit(folder, f"an engine reads plain LoRA adapters, and this is {what}")
        if rank > most:
            raise misfit(folder, f"its rank is {rank}, and the engine was started for at most {most} (lora_rank)")
        layers = {self.layer_of(name)[0] for name in self.shapes}
        if odd := {(layer, factor) for layer in layers for factor in _FACTORS} ^ {*map(self.layer_of, self.shapes)}:
            layer, factor = min(odd)
            raise misfit(
                folder, f"a linear layer has lora_A and lora_B, and of {layer} {factor} is missing or too many"
            )
        self.rank = rank
        divisor = math.sqrt(rank) if self.settings.get("use_rslora") else rank
        self.scaling = float(self.settings.get("lora_alpha", rank)) / divisor

    @staticmethod
    def layer_of(name: str) -> tuple[str, str]:
        """The layer that a tensor belongs to, by its path in the model, and which factor it is (`lora_A`, `lora_B`)."""
        path, _, factor = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        return path, factor


def choose(names: Iterable[str], version: int) -> list[str]:
    """A dozen tensors to look at, the same for the same names and version.

    Embedding and head are always among them: where they share one tensor, loading may forget one of the two.
    """
    ordered = sorted(names)
    drawn = rng.stream(0, "published", version, *ordered).permutation(len(ordered))[:_LOOKED_AT]
    ends = {name for name in ordered if any(part in name for part in _ENDS) and name.endswith("weight")}
    return sorted(ends | {ordered[int(index)] for index in drawn})


class Restarted(Publishable, Protocol):
    """An engine that has just been started once more."""

    async def close(self) -> None: ...


async def publish_again(engine: Restarted, published: Mapping[str, Weights]) -> None:
    """Bring back what was published last under each name, the model's own weights first.

    Raises:
        EngineError: it cannot be read any more; the engine is closed.
    """
    try:
        for name in sorted(published):
            await engine.publish(published[name])
    except EngineError:
        # Nobody may be answered by the weights of another version.
        await engine.close()
        raise


def refuse_adapters(prompts: Sequence[EncodedPrompt]) -> None:
    """For engines without the capability `lora`. Raises EngineError if a prompt names an adapter."""
    for prompt in prompts:
        if prompt.adapter:
            raise unknown(prompt.adapter, [])


def unknown(adapter: str, known: Iterable[str]) -> EngineError:
    """The error for a prompt whose adapter was never published."""
    names = ", ".join(sorted(known)) or "none"
    return EngineError(f"the engine has no adapter {adapter!r}", where=f"adapters: {names}", remedy="publish it first")


def too_many(adapter: str, most: int) -> EngineError:
    """The error for one adapter more than the engine was started for."""
    what = f"no room for the adapter {adapter!r}: the engine was started for {most}"
    return EngineError(what, remedy="raise the engine's `adapters`")


def unreadable(folder: str, cause: object) -> EngineError:
    """The error for weights that cannot be read."""
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    remedy = "publish a folder that transformers or, of an adapter, peft wrote"
    return EngineError(f"the weights cannot be read: {first[:300]}", where=folder, remedy=remedy)


def misfit(folder: str, why: str) -> EngineError:
    """The error for weights that are not of this model, or not for this engine."""
    return EngineError(f"the weights do not fit the model: {why}", where=folder, remedy="publish weights of this model")


def mismatch(name: str, folder: str) -> EngineError:
    """The error for a tensor that the engine holds otherwise than it was published."""
    what = f"after a publication the engine does not hold what was published: {name} differs"
    return EngineError(what, where=folder, remedy="start the engine again; it then publishes the version before")


def broken(why: str) -> EngineError:
    """The error of an engine whose weights are neither the old ones nor the new ones."""
    return EngineError(f"the engine's weights are broken: {why}", remedy="start the engine again")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"
