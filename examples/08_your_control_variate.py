"""Custom control variates: the Stein term of a function, and a term that is zero-mean by construction.

python pipelines/run.py --plugin examples/08_your_control_variate.py \
    "method.control_variates.terms=[spectral,brightness,shifted]"
"""

from __future__ import annotations

from torch import Tensor

import steindreamer
from steindreamer.distill import GeometryBuffers, NoiseLevel, NoisySample


@steindreamer.register_control_variate("brightness")
def brightness(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
    """phi of Stein's identity: one number per image, near -1, differentiable in the noisy image."""
    return -1 - 0.1 * noisy.mean((1, 2, 3)).tanh()


@steindreamer.register_control_variate("shifted")
class Shifted:
    """The noise of the pixel to the left: E[noise] = 0, whatever the image."""

    names = ("shifted",)
    initial = (0.0,)

    def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Tensor:
        return -sample.noise.roll(1, -1)[None]
