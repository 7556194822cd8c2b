"""`DeferredTerms`: regularizers of a renderer that are computed only if they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jaxtyping import Float
from torch import Tensor


class DeferredTerms(Mapping[str, Float[Tensor, ""]]):
    """Terms by name, each computed when it is first read and then kept; for `RenderOutput.terms`.

    Example:
        >>> vertices = torch.tensor([[3.0, 4.0, 0.0]])
        >>> DeferredTerms({"length": lambda: vertices.norm(dim=1).mean()})["length"]
        tensor(5.)
    """

    def __init__(self, terms: Mapping[str, Callable[[], Float[Tensor, ""]]]) -> None:
        self._terms = terms
        self._values: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Float[Tensor, ""]:
        if name not in self._values:
            self._values[name] = self._terms[name]()
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._terms

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)
