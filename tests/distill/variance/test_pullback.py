"""J and J^T of a rendering, against double backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steindreamer.distill.variance.pullback import Pullback


def nonlinear_renderer() -> tuple[Callable[[], Tensor], list[Tensor]]:
    """A coordinate network whose output is composited, so that J depends on the parameters."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(shape, generator=generator).requires_grad_() for shape in ((2, 16), (16, 4)))
    axis = torch.linspace(-1, 1, 8)
    points = torch.cartesian_prod(axis, axis)

    def render() -> Tensor:
        color = torch.sigmoid(torch.tanh(points @ first * 2) @ second)
        return (color[:, :3] * color[:, 3:]).T.reshape(1, 3, 8, 8)

    return render, [first, second]


def double_backward_jvp(render: Callable[[], Tensor], parameters: list[Tensor], r: list[Tensor]) -> Tensor:
    image = render()
    dummy = torch.zeros_like(image, requires_grad=True)
    pulled = torch.autograd.grad(image, parameters, dummy, create_graph=True)
    return torch.autograd.grad(pulled, dummy, r)[0]


def test_j_and_gram_match_double_backward() -> None:
    render, parameters = nonlinear_renderer()
    pullback = Pullback(render, parameters)
    v = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    r = pullback.vjp(v)
    expected = double_backward_jvp(render, parameters, r)
    for actual in (pullback.jvp(r), pullback.gram(v)):
        assert (actual - expected).norm() / expected.norm() < 1e-3


def test_gram_is_symmetric_and_not_the_identity() -> None:
    render, parameters = nonlinear_renderer()
    gram = Pullback(render, parameters).gram
    u, v = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close((u * gram(v)).sum(), (gram(u) * v).sum(), rtol=2e-3, atol=0)
    assert torch.cosine_similarity(gram(v).flatten(), v.flatten(), dim=0) < 0.9


def test_parameters_come_back_to_the_bit_even_if_rendering_fails() -> None:
    render, parameters = nonlinear_renderer()
    before = [p.detach().clone() for p in parameters]
    Pullback(render, parameters).gram(torch.ones(1, 3, 8, 8))
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))

    def failing() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Pullback(failing, parameters).jvp(before)
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


def test_no_direction_and_unused_parameters_give_zero() -> None:
    render, parameters = nonlinear_renderer()
    unused = torch.ones(3, requires_grad=True)
    pullback = Pullback(render, [*parameters, unused])
    r = pullback.vjp(torch.ones(1, 3, 8, 8))
    assert torch.equal(r[-1], torch.zeros(3))
    assert torch.equal(pullback.jvp([torch.zeros_like(each) for each in r]), torch.zeros(1, 3, 8, 8))
