"""Weights to publish: the built-in model a little changed, and LoRA adapters of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from coterie.agents.engines import models

MODEL = "smollm2-135m"
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_weights(folder: Path, seed: int) -> Path:
    """A folder of the whole model, all tensors changed by a twentieth."""
    source = Path(models.resolve(MODEL))
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "coterie.json"))
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(source / "model.safetensors")
    for name in sorted(tensors):
        noise = torch.randn(tensors[name].shape, generator=generator) * tensors[name].float().std()
        tensors[name] = (tensors[name].float() + noise / 20).to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def make_adapter(folder: Path, seed: int, rank: int = 8) -> Path:
    """A folder as peft writes it: an adapter of every linear layer."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in sorted(load_file(Path(models.resolve(MODEL)) / "model.safetensors").items()):
        path = name.removesuffix(".weight")
        if path.rpartition(".")[2] in _LAYERS:
            rows, columns = weight.shape
            for factor, shape in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
                noise = torch.randn(shape, generator=generator) * 0.03
                tensors[f"base_model.model.{path}.{factor}.weight"] = noise
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(_LAYERS)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
