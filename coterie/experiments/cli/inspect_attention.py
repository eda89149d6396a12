"""`coterie inspect-attention`: what a model's attention does with a text, as a picture and as numbers."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import typer

from coterie.errors import ConfigError


def inspect_attention(
    model: str = typer.Argument(..., metavar="MODEL", help="A built-in name (`coterie ls models`), folder or hub id."),
    file: str = typer.Argument(..., metavar="FILE", help="A text in UTF-8; `-` reads from stdin."),
    layers: str | None = typer.Option(None, "--layers", metavar="L,L,...", help="Where local and global heads are "
                                      "sought; default: five of the middle third."),
    heads: str | None = typer.Option(None, "--heads", metavar="L.H,L.H,...", help="Read the signals from these heads "
                                     "instead: 12.0,15.3 are head 0 of layer 12 and head 3 of layer 15."),
    window: int = typer.Option(10, "--window", min=1, help="Of WAAD, in tokens."),
    horizon: tuple[int, int] = typer.Option((10, 100), "--horizon", metavar="FROM TO", help="Of FAI, in tokens."),
    without_sink: bool = typer.Option(False, "--without-sink", help="Rank heads by the attention that does not "
                                      "go to the first token."),
    max_tokens: int = typer.Option(2048, "--max-tokens", min=2, help="Read at most so many tokens."),
    out: Path = typer.Option(Path(), "--out", metavar="DIR", help="Where the files are written; default: here."),
) -> None:  # fmt: skip
    """Write a picture and a JSON of what attention heads do with a text."""
    wanted = (_layers(layers), _heads(heads))
    _check_horizon(horizon)
    text, stem = _read(file)
    _check_folder(out)
    from coterie.agents.engines import process

    process.prepare()
    from coterie.experiments.inspection.attention import Options, inspect
    from coterie.experiments.inspection.attention_picture import write

    found = inspect(model, text, Options(*wanted, window, horizon, max_tokens, without_sink))
    for path in write(found, out, stem):
        print(f"wrote {path}")
    if len(found.ids) < found.num_tokens:
        print(f"read the first {len(found.ids)} of {found.num_tokens} tokens; more with --max-tokens", file=sys.stderr)


def _read(file: str) -> tuple[str, str]:
    """A text, and what its results are called."""
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode("utf-8"), "stdin"
        return Path(file).read_bytes().decode("utf-8"), Path(file).stem
    except OSError as cause:
        raise ConfigError(f"cannot read: {cause.strerror}", where=file, remedy="name a text file, or -") from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"this is no text in UTF-8: {cause}", where=file, remedy="convert it to UTF-8") from cause


def _check_folder(out: Path) -> None:
    """Refuse a folder that cannot be written or made, before a model is loaded for nothing. Leaves nothing behind."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as cause:
        remedy = "name a folder in which files can be made"
        raise ConfigError(f"cannot write: {cause.strerror}", where=f"--out {out}", remedy=remedy) from cause


def _layers(given: str | None) -> tuple[int, ...]:
    try:
        return () if given is None else tuple(int(word) for word in given.split(","))
    except ValueError:
        remedy = "such as --layers 10,12,15"
        raise ConfigError("layers are numbers", where=f"--layers {given!r}", remedy=remedy) from None


def _heads(given: str | None) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [] if given is None else [word.split(".") for word in given.split(",")]
        return tuple((int(layer), int(head)) for layer, head in pairs)
    except ValueError:
        remedy = "such as --heads 12.0,15.3: layer, point, head"
        raise ConfigError("heads are pairs of numbers", where=f"--heads {given!r}", remedy=remedy) from None


def _check_horizon(horizon: tuple[int, int]) -> None:
    if not 0 <= horizon[0] <= horizon[1]:
        where = f"--horizon {horizon[0]} {horizon[1]}"
        raise ConfigError("a horizon begins at 0 or later, and before its end", where=where, remedy="such as 10 100")
