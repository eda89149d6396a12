"""Plugins: modules that call `registry.register`, named under `imports:` or by entry points of the group `coterie`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from coterie import registry
from coterie.config.base import KindConfig
from coterie.errors import PluginError

GROUP = "coterie"
_files: dict[Path, str] = {}


def import_plugins(imports: Iterable[str], base: Path | str) -> dict[str, str]:
    """Import every installed plugin and those that an experiment names. Doing it again changes nothing.

    A plugin file becomes a module named after its stem and its content, so that `module:attribute` strings mean the
    same in every process that has imported the same file.

    Args:
        imports: Paths of .py files relative to `base`, or importable names.
        base: The folder of the experiment file.

    Returns:
        SHA-256 of each plugin's source, by the name under `imports:` or by `distribution:module`.

    Raises:
        PluginError: one cannot be found or imported, or registers something unusable.
    """
    return import_installed() | {name: import_named(name, base) for name in imports}


def import_named(name: str, base: Path | str) -> str:
    """Import one plugin that an experiment names, and return its hash; see `import_plugins`."""
    return _import_file(name, Path(base) / name) if name.endswith(".py") else _import_module(name, name, name)


def import_installed() -> dict[str, str]:
    """Import the modules that installed distributions offer in the entry-point group; see `import_plugins`."""
    found = _find_installed(tuple(sys.path))
    return {
        f"{_distribution(entry)}:{entry.module}": _import_module(
            entry.module, f"{_distribution(entry)}:{entry.module}", f"distribution {_distribution(entry)}"
        )
        for entry in found
    }


@cache
def _find_installed(folders: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What is offered in the folders of `sys.path`: looked for once, as it is in a file of every distribution there."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (_distribution(entry), entry.name)))


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.name


def _import_module(name: str, origin: str, shown: str) -> str:
    try:
        with registry.origin(origin):
            module = importlib.import_module(name)
            _check(origin, shown)
    except (Exception, SystemExit) as cause:
        sys.modules.pop(name, None)
        raise _broken(shown, cause, name) from cause
    return _hash(module)


def _import_file(origin: str, path: Path) -> str:
    try:
        source = path.read_bytes()
    except OSError as cause:
        raise PluginError(
            f"cannot read the plugin {origin}: {cause.strerror}", where=str(path),
            remedy="write the path relative to the experiment file",
        ) from cause  # fmt: skip
    digest = hashlib.sha256(source).hexdigest()
    if _files.setdefault(path.resolve(), digest) != digest:
        raise PluginError(
            "a plugin changed since this process imported it", where=str(path), remedy="start a new Python process"
        )
    name = f"coterie_plugin_{''.join(c if c.isalnum() else '_' for c in path.stem)}_{digest[:12]}"
    if name not in sys.modules:
        _execute(name, origin, path)
    return digest


def _execute(name: str, origin: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("no Python module", where=str(path), remedy="name a .py file")
    module = importlib.util.module_from_spec(spec)
    # Entered before it runs: dataclasses and pydantic look their module up there.
    sys.modules[name] = module
    try:
        with registry.origin(origin):
            spec.loader.exec_module(module)
            _check(origin, str(path))
    except (Exception, SystemExit) as cause:
        del sys.modules[name]
        del _files[path.resolve()]
        raise _broken(str(path), cause, str(path)) from cause


def _check(origin: str, shown: str) -> None:
    """What a plugin has registered must be usable in a file."""
    for kind in registry.KINDS:
        for entry in registry.entries(kind):
            if entry.origin != origin or not entry.config:
                continue
            config = registry.load(entry.config)
            is_config = isinstance(config, type) and issubclass(config, KindConfig)
            if not is_config or config.model_fields["kind"].default != entry.name:
                raise PluginError(
                    f"the config {entry.config} of the {kind} {entry.name!r} does not fit", where=shown,
                    remedy=f'make it a KindConfig with the field kind: Literal["{entry.name}"] = "{entry.name}"',
                )  # fmt: skip


def _broken(shown: str, cause: BaseException, source: str) -> PluginError:
    """The cause, with the line of the plugin that raised it."""
    if isinstance(cause, PluginError):
        what = f"{cause.what} ({cause.where})" if cause.where not in ("", shown) else cause.what
        return PluginError(what, where=shown, remedy=cause.remedy)
    lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == source]
    line = getattr(cause, "lineno", None) or (lines[-1] if lines else None)
    where = f"{shown}:{line}" if line else shown
    return PluginError(
        f"a plugin cannot be imported: {type(cause).__name__}: {cause}", where=where,
        remedy="mend it, uninstall it, or take it out of imports",
    )  # fmt: skip


def _hash(module: ModuleType) -> str:
    path = getattr(module, "__file__", None)
    return hashlib.sha256(Path(path).read_bytes() if path else b"").hexdigest()
