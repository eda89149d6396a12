"""Files to one tree: reading, `extends`, and what every file hashed to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from coterie.config.problems import Problem, got, nearest
from coterie.config.tree import Mark, Node, merge
from coterie.config.tree import Path as Steps
from coterie.config.yaml import MAX_BYTES, parse

_MAX_LEVELS = 16


class Sources:
    """Reads an experiment file and all that it extends.

    Attributes:
        problems: What was wrong on the way.
        hashes: SHA-256 of every file read, by its path as shown in messages.
        is_whole: Whether every file could be read to its end; otherwise what is missing from the tree is no mistake.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.hashes: dict[str, str] = {}
        self.is_whole = True

    def read(self, path: Path) -> Node:
        """The merged tree of `path`; a null node if it cannot be read."""
        return self._read(path, Mark(str(path)), (), path.parent)

    def extend(self, root: Node, folder: Path) -> Node:
        """The tree of a mapping that is no file: `extends` is relative to `folder`."""
        return self._extend(root, folder, (), folder)

    def _read(self, path: Path, asked: Mark, above: tuple[Path, ...], home: Path, asked_at: Steps = ()) -> Node:
        text = self._text(path, asked, asked_at)
        if text is None:
            return Node(None, asked)
        root, problems = parse(text, str(path))
        self.problems += problems
        if not isinstance(root.value, dict):
            self.is_whole = False
            if not problems:
                what = "the file is empty" if root.value is None else f"got {got(root.plain())}"
                self.problems.append(Problem(root.mark, (), f"expected a mapping of sections, {what}"))
        _rebase(root, path.parent, home)
        return self._extend(root, path.parent, (*above, _identity(path)), home)

    def _extend(self, root: Node, folder: Path, above: tuple[Path, ...], home: Path) -> Node:
        if not isinstance(root.value, dict) or "extends" not in root.value:
            return root
        named = root.value.pop("extends")
        if not isinstance(named.value, str) or not named.value:
            self._add(named.mark, f"extends takes the path of one file, got {got(named.plain())}", ("extends",))
            return root
        base = Path(os.path.normpath(folder / named.value))
        if _identity(base) in above:
            self._add(named.mark, f"{base} extends this file: a cycle", ("extends",))
        elif len(above) >= _MAX_LEVELS:
            self._add(named.mark, f"more than {_MAX_LEVELS} files extend each other", ("extends",))
        else:
            below = self._read(base, named.mark, above, home, ("extends",))
            return merge(below, root)
        return root

    def _text(self, path: Path, asked: Mark, asked_at: Steps) -> str | None:
        try:
            if not path.is_file():
                what = "a link to a file that is not there" if path.is_symlink() else "no such file"
                raise FileNotFoundError(2, "not a regular file" if path.exists() else what)
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            what = "cannot be read" if asked.source == str(path) else f"cannot read {path}"
            message = f"{what}: {reason[:1].lower()}{reason[1:]}"
            self._add(asked, message, asked_at, "" if path.exists() else _neighbour(path))
            return None
        self.hashes[str(path)] = hashlib.sha256(data).hexdigest()
        if len(data) > MAX_BYTES:
            self._add(Mark(str(path)), f"larger than {MAX_BYTES} bytes")
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start]
            column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
            self._add(Mark(str(path), before.count(b"\n") + 1, column), "not UTF-8")
            return None

    def _add(self, mark: Mark, message: str, path: Steps = (), hint: str = "") -> None:
        """A problem that leaves the tree incomplete."""
        self.is_whole = False
        self.problems.append(Problem(mark, path, message, hint))


def _rebase(root: Node, folder: Path, home: Path) -> None:
    """Make paths of plugins and of the benchmark's data relative to the outermost file, whichever file names them."""
    if folder == home or not isinstance(root.value, dict):
        return
    for _, item in root.value.get("imports", Node([], root.mark)).children():
        if isinstance(item.value, str) and item.value.endswith(".py"):
            item.value = os.path.relpath(folder / item.value, home)
    data = dict(root.value.get("benchmark", Node({}, root.mark)).children()).get("path")
    # What begins with a variable is not known before it is replaced, and may well be absolute.
    if data is not None and isinstance(data.value, str) and not data.value.startswith(("/", "${")):
        data.value = os.path.relpath(folder / data.value, home)


def _identity(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml") and p.name != path.name]
        return nearest(path.name, names[:1000])
    except OSError:
        return ""
