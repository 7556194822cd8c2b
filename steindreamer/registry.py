"""Registry of components by name: built-in ones, and those added by plugins or scripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar, overload

Entry = TypeVar("Entry")
Added = TypeVar("Added")

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


class Registry(MutableMapping[str, Entry]):
    """Components of one kind by name, in the order of registration; names are unique.

    Example:
        >>> from steindreamer.registry import Registry
        >>> shapes = Registry("shape", {"sphere": 1, "cube": 6})
        >>> shapes.register("cone", 2)
        >>> shapes.names("c*")
        ['cube', 'cone']
        >>> shapes.register("cone", 3)
        Traceback (most recent call last):
        ValueError: a shape named 'cone' exists already: choose another name
    """

    def __init__(
        self, kind: str, entries: Mapping[str, Entry], adopt: Callable[[str, Any], Entry] | None = None
    ) -> None:
        """Create a registry of the built-in components.

        Args:
            kind: Type of the components in error messages, such as "method".
            entries: Built-in components by name.
            adopt: Converts a registered object to an entry; raises ValueError for unsuitable objects.
        """
        self.kind = kind
        self._entries = dict(entries)
        self._adopt = adopt

    @overload
    def register(self, name: str) -> Callable[[Added], Added]: ...

    @overload
    def register(self, name: str, entry: Entry) -> None: ...

    def register(self, name: str, entry: Any = None) -> Any:
        """Register a component under a new name, as a call or as a decorator.

        Args:
            name: Letters, digits, '_', '-', '.' and '+', starting with a letter or digit.
            entry: The component; omit it to use the method as a decorator.

        Raises:
            ValueError: The name is taken or not valid.

        Example:
            >>> from dataclasses import dataclass
            >>> import steindreamer
            >>> from steindreamer.distill import SSDConfig
            >>> @steindreamer.register_method("calm")
            ... @dataclass
            ... class CalmConfig(SSDConfig):
            ...     '''SSD with little guidance.'''
            ...
            ...     guidance_scale: float = 2.0
            >>> steindreamer.load_config(preset=None, method="calm").method.guidance_scale
            2.0
        """
        if entry is not None:
            self[name] = entry
            return None

        def decorate(added: Added) -> Added:
            self[name] = added  # pyright: ignore[reportArgumentType]
            return added

        return decorate

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that match a pattern with the wildcards `*`, `?` and `[...]`.

        Example:
            >>> import steindreamer
            >>> steindreamer.list_methods("s*")
            ['sds', 'ssd', 'sdi']
        """
        return [name for name in self if fnmatchcase(name, pattern)]

    def __setitem__(self, name: str, entry: Entry) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a valid name of a {self.kind}; letters, digits, '_', '-', '.' and '+' are accepted, "
                "with a letter or digit first"
            )
        if name in self._entries:
            raise ValueError(f"a {self.kind} named {name!r} exists already: choose another name")
        self._entries[name] = self._adopt(name, entry) if self._adopt else entry

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}, {list(self._entries)})"
