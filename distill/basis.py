"""Orthonormal bases of images: discrete cosine and Haar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SeparableBasis:
    """An orthonormal transform acting on channels, rows and columns in turn."""

    channels: Float[Tensor, "c c"]
    rows: Float[Tensor, "h h"]
    columns: Float[Tensor, "w w"]
    squared_frequency: Float[Tensor, "h w"]
    """Squared frequency of every coefficient in (half-cycles per image)^2, summed over both directions; 0 is the
    mean."""

    @classmethod
    def cosine(cls, channels: int, height: int, width: int) -> SeparableBasis:
        """The orthonormal DCT-II for images of any size."""
        rows, columns = cosine_matrix(height), cosine_matrix(width)
        return cls(
            cosine_matrix(channels), rows, columns, _squared_frequency(torch.arange(height), torch.arange(width))
        )

    @classmethod
    def haar(cls, channels: int, height: int, width: int) -> SeparableBasis:
        """The Haar wavelets of every scale, with the cosine transform across channels.

        Raises ValueError unless height and width are powers of two.
        """
        rows, columns = _haar(height), _haar(width)
        return cls(
            cosine_matrix(channels), rows, columns, _squared_frequency(_haar_scales(height), _haar_scales(width))
        )

    def to_coefficients(self, image: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """The coefficients of an image, computed in the image's dtype."""
        return torch.einsum(
            "pc,...chw->...phw", self.channels.to(image), self.rows.to(image) @ image @ self.columns.T.to(image)
        )

    def to_image(self, coefficients: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """The image with these coefficients; the inverse of `to_coefficients`."""
        image = self.rows.T.to(coefficients) @ coefficients @ self.columns.to(coefficients)
        return torch.einsum("pc,...phw->...chw", self.channels.to(coefficients), image)


def _squared_frequency(rows: Tensor, columns: Tensor) -> Float[Tensor, "h w"]:
    return (rows[:, None] ** 2 + columns**2).float()


def cosine_matrix(size: int) -> Float[Tensor, "n n"]:
    """The orthonormal DCT-II matrix in float64; row k is a cosine of k half-periods."""
    index = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi * (index + 0.5) * index[:, None] / size) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _haar(size: int) -> Float[Tensor, "n n"]:
    if size < 1 or size & (size - 1):
        raise ValueError(f"the Haar basis needs a power of two, got {size}")
    matrix = torch.ones(1, 1, dtype=torch.float64)
    sum_, difference = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)[:, None] / math.sqrt(2)
    while len(matrix) < size:
        matrix = torch.cat(
            [torch.kron(matrix, sum_), torch.kron(torch.eye(len(matrix), dtype=torch.float64), difference)]
        )
    return matrix


def _haar_scales(size: int) -> Tensor:
    """Number of periods over the image of each Haar wavelet: 0 for the mean, then 1, 2, 2, 4, 4, 4, 4, ..."""
    index = torch.arange(size)
    return torch.where(index > 0, 2 ** index.clamp(min=1).double().log2().floor(), 0.0).long()
