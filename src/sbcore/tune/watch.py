"""Keeps an eye on measured curves: those that are no numbers are named once, not in every step.

Such a curve changes nothing but itself: the clamp takes k0 in that layer, and the averages leave
the sequence out. But it says that the model's queries or keys overflowed, which somebody must know.
"""

import sys

import numpy as np

from sbcore.types import FloatArray


class CurveWatch:
    """Warns of the first curves that are not finite; silent from then on."""

    def __init__(self, variant: str) -> None:
        self._variant, self._warned = variant, False

    def look(self, step: int, curves: FloatArray, *, measured: bool) -> None:
        """Writes one line to stderr, once, if a curve of [L, N, K] is not finite.

        ``measured`` says whether this step measured at all; if not, NaN is no news.
        """
        if self._warned or not measured:
            return
        layers = np.flatnonzero(~np.isfinite(curves).all(axis=(1, 2)))
        if len(layers):
            self._warned = True
            names = ", ".join(str(layer) for layer in layers[:8].tolist())
            more = f" and {len(layers) - 8} more" if len(layers) > 8 else ""
            sys.stderr.write(
                f"warning: train {self._variant}: step {step}: coverage of layers {names}{more} is "
                "not a number. those layers keep k0 then, and such sequences teach nothing; "
                "further cases are not reported. check the model's dtype and learning rate.\n"
            )
