"""Trained weights as folders that engines load: as transformers writes models, or as peft writes adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

_UNFINISHED = ".unfinished-"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` in the end; after an error nothing has changed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (folder.with_name(f"{_UNFINISHED}{part}{folder.name}") for part in ("", "old-"))
    for left in (unfinished, old):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`."""
    with replaced(folder) as place:
        ours = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
        save_file(ours, place / "adapter_model.safetensors", metadata={"format": "pt"})
        (place / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_model(folder: Path, model: Any, tensors: Mapping[str, Tensor], source: str) -> None:
    """Weights, config and generation config, and the tokenizer as it was.

    Args:
        folder: Where it is to be.
        model: Whose they are.
        tensors: All weights, in the precision in which they are kept.
        source: The folder or hub id that it was loaded from. What engines compute in stays what is written there.
    """
    with replaced(folder) as place:
        model.save_pretrained(place, state_dict=dict(tensors))
        if Path(source).is_dir():
            for path in sorted(Path(source).iterdir()):
                if path.is_file() and not path.name.endswith(_WEIGHTS) and path.name != "coterie.json":
                    shutil.copyfile(path, place / path.name)
            return
        from transformers import AutoConfig, AutoTokenizer

        AutoTokenizer.from_pretrained(source).save_pretrained(place)
        dtype = str(AutoConfig.from_pretrained(source).dtype or model.dtype).removeprefix("torch.")
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"dtype": dtype}, indent=2) + "\n")
