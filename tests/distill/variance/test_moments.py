"""Moments of random gradients: unbiased, shown by repeating a small experiment whose moments are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steindreamer.distill.variance.moments import Moments, NestedMoments, standard_error

# Two equally likely cameras, two equally likely levels; the noise is +1 or -1. Gradients are
# CENTERS[camera, level] + noise * SWINGS[camera, level].
CENTERS = {
    "sds": torch.tensor([[[1.0, 2.0], [2.0, 3.0]], [[3.0, -1.0], [0.0, 1.0]]]),
    "other": torch.tensor([[[2.0, 0.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 4.0]]]),
}
SWINGS = {
    "sds": torch.tensor([[[0.5, 0.0], [2.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]]),
    "other": torch.tensor([[[0.1, 0.3], [1.0, 1.0]], [[0.0, 2.0], [0.2, 0.2]]]),
}


def added(moments: NestedMoments, generator: torch.Generator) -> None:
    """Add a random camera with random levels and noises."""
    camera, *levels = torch.randint(2, (3,), generator=generator).tolist()
    noises = (2 * torch.randint(2, (2, 2), generator=generator) - 1).tolist()

    def pair(name: str, level: int, noise: list[int]) -> tuple[Tensor, Tensor]:
        first, second = (CENTERS[name][camera, level] + each * SWINGS[name][camera, level] for each in noise)
        return first, second

    one, two = zip(levels, noises, strict=True)
    moments.add({name: (pair(name, *one), pair(name, *two)) for name in CENTERS})


def repeated(cameras: int, times: int) -> list[dict[str, Moments]]:
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(times):
        moments = NestedMoments("sds")
        for _ in range(cameras):
            added(moments, generator)
        found.append(moments.result())
    return found


@pytest.mark.parametrize("cameras", [2, 3])
def test_the_variance_is_split_in_three_without_bias(cameras: int) -> None:
    repeats = repeated(cameras, 500)
    for name, centers in CENTERS.items():
        by_camera = centers.mean(1)
        expected = {
            "noise": SWINGS[name].square().sum(2).mean(),
            "level": (centers - by_camera[:, None]).square().sum(2).mean(),
            "camera": (by_camera - by_camera.mean(0)).square().sum(1).mean(),
            "signal": by_camera.mean(0).square().sum(),
        }
        expected["within_view"] = expected["noise"] + expected["level"]
        expected["total"] = expected["within_view"] + expected["camera"]
        for moment, value in expected.items():
            found = [getattr(each[name], moment) for each in repeats]
            error = standard_error(found)
            assert abs(sum(found) / len(found) - float(value)) < 4 * error, (name, moment)
            assert error < 0.2 * float(centers.square().sum(2).mean()), "a wrong factor would be seen"


def test_many_cameras_find_the_cosine_the_bias_and_the_standard_errors() -> None:
    repeats = repeated(60, 30)
    sds, other = (CENTERS[name].mean((0, 1)) for name in ("sds", "other"))

    def column(value: str) -> Tensor:
        return torch.tensor([getattr(result["other"], value) for result in repeats])

    cosine, bias = torch.cosine_similarity(sds, other, dim=0), (sds - other).square().sum() / sds.square().sum()
    assert float(column("cosine").mean()) == pytest.approx(float(cosine), abs=0.02)
    assert float(column("bias").mean()) == pytest.approx(float(bias), abs=0.02)
    for name in ("noise", "level"):
        assert float(column(f"{name}_error").mean()) == pytest.approx(float(column(name).std()), rel=0.4)
    assert column("camera").std() < column("camera_error").mean() < 2.5 * column("camera").std()


def test_the_reference_agrees_with_itself_and_noise_cancels_in_the_bias() -> None:
    for outcome in repeated(2, 50):
        if outcome["sds"].signal > 0:
            assert outcome["sds"].cosine == pytest.approx(1.0) and outcome["sds"].bias == pytest.approx(0.0)
    moments = NestedMoments("sds")
    for shift in (0.0, 5.0, -3.0):  # the same gradients doubled: no noise in the comparison
        a, b = torch.tensor([1.0, shift]), torch.tensor([2.0, -shift])
        moments.add({"sds": ((a, b), (b, b)), "twice": ((2 * a, 2 * b), (2 * b, 2 * b))})
    twice = moments.result()["twice"]
    assert twice.bias == pytest.approx(1.0) and twice.cosine == pytest.approx(1.0)


def test_what_cannot_be_known_is_nan_and_what_does_not_fit_is_refused() -> None:
    moments, one = NestedMoments("sds"), torch.ones(2)
    with pytest.raises(ValueError, match="no camera"):
        moments.result()
    with pytest.raises(ValueError, match="sds"):
        moments.add({"other": ((one, one), (one, one))})
    assert moments.add({"sds": ((one, -one), (one, one))}) == {"sds": (4.0, 0.0)}
    only = moments.result()["sds"]
    assert only.noise == 2.0 and math.isnan(only.camera) and math.isnan(only.noise_to_signal)
    with pytest.raises(ValueError, match="same estimators"):
        moments.add({"sds": ((one, one), (one, one)), "new": ((one, one), (one, one))})
    moments.add({"sds": ((-one, one), (-one, -one))})
    canceled = moments.result()["sds"]  # both means are opposite
    assert canceled.signal < 0 and math.isnan(canceled.noise_to_signal) and math.isnan(canceled.cosine)
    assert math.isnan(canceled.camera_error), "one pair of cameras"
