"""Variance times seconds against brute force, and the variance of several draws against B + W / K."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from small_world import SIZE, TwoModes, make_geometry

from steindreamer.distill import SDSConfig
from steindreamer.distill.variance.draw_cost import DrawCost


@pytest.mark.parametrize("ratio", [0.1, 1 / 3, 3.0, 20.0])
@pytest.mark.parametrize("seconds", [0.1, 3.0, 10.0])
def test_the_best_number_of_draws_is_that_of_a_search(ratio: float, seconds: float) -> None:
    cost = DrawCost(ratio, 1.0, seconds, 1.0)
    products = {draws: (1 + ratio / draws) * (seconds + draws) for draws in range(1, 65)}
    best = cost.best(64)
    assert products[best] == min(products.values())
    assert cost.gain(best) == pytest.approx(products[1] / products[best])
    assert cost.variance_time(cost.optimum) == pytest.approx((seconds**0.5 + ratio**0.5) ** 2)
    fine = min((i / 100 for i in range(1, 2000)), key=lambda draws: (1 + ratio / draws) * (seconds + draws))
    assert cost.optimum == pytest.approx(fine, abs=0.01)
    assert cost.best(2) == min((1, 2), key=products.__getitem__)


def test_the_table_of_the_manual_is_recomputed() -> None:
    text = (Path(__file__).parents[3] / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = text.split("| W / B | u / c | K* | best K | gain |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(rows) == 5
    for row in rows:
        ratio, seconds, *expected = (cell.strip() for cell in row.strip("|").split("|"))
        cost = DrawCost(float(Fraction(ratio)), 1.0, float(seconds), 1.0)
        best = cost.best(64)
        assert expected == [f"{cost.optimum:.2f}", str(best), f"{cost.gain(best):.2f}x"]


def test_extremes() -> None:
    assert DrawCost(1.0, -0.1, 1.0, 1.0).optimum == math.inf and DrawCost(1.0, -0.1, 1.0, 1.0).best(8) == 8
    assert DrawCost(0.0, 1.0, 1.0, 1.0).best(8) == 1 and DrawCost(-1.0, 1.0, 1.0, 1.0).optimum == 0
    assert math.isnan(DrawCost(0.0, 0.0, 1.0, 1.0).gain(1))


@pytest.mark.parametrize("antithetic", [False, True])
def test_the_variance_of_independent_draws_is_that_between_views_plus_that_within_over_the_number(
    antithetic: bool,
) -> None:
    """Views are four images of a two-mode prior; draws in strata have less variance than independent ones."""
    batch, repeats = 64, 40
    distiller = SDSConfig(guidance_scale=1.0, antithetic=antithetic).build(TwoModes())
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    geometry, generator = make_geometry(batch), torch.Generator().manual_seed(1)

    def gradients(independent: int | None) -> torch.Tensor:
        found = [
            distiller(
                images.repeat(batch // 4, 1, 1, 1), geometry, None, progress=0.0, generator=generator,
                independent_draws=independent,
            ).gradient for _ in range(repeats)
        ]  # fmt: skip
        return batch * torch.stack(found).reshape(-1, 4, 3 * SIZE**2)

    def variance(found: torch.Tensor) -> float:
        return float(found.flatten(0, 1).var(0).sum())

    one = gradients(1)
    within = float(one.var(0).sum(1).mean())
    means = one.mean(0)
    between = float((means - means.mean(0)).square().sum(1).mean()) - within / len(one) * 3 / 4
    independent = variance(gradients(4))
    assert independent == pytest.approx(DrawCost(within, between, 1.0, 1.0).variance(4), rel=0.05)
    distiller.draws = 4
    stratified = variance(gradients(None))
    assert stratified - between < (independent - between) * (0.8 if antithetic else 1.0)
