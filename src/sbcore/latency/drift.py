"""How much the device's clock moved while the grid was measured: one point, again and again."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Drift:
    """Medians of the reference point through the run."""

    medians_ms: list[float] = field(default_factory=list)

    def describe(self) -> dict[str, float | list[float]]:
        """Returns the medians in order, and how far the slowest is above the fastest, a share."""
        rounded = [round(ms, 4) for ms in self.medians_ms]
        spread = float(np.max(self.medians_ms) / np.min(self.medians_ms) - 1.0)
        return {"largest": spread, "medians_ms": rounded}
