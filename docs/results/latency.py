"""How good committed latency tables are: every whole micro-batch beside its prediction.

python docs/results/latency.py config/latency/*.parquet
"""

import sys
from pathlib import Path

import numpy as np

from sbcore.artifacts import read_json
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.quality import predict_micro_batches
from sbcore.latency.show import closing_sentence
from sbcore.latency.table import KNOWN, MeasuredPoint, profile_files, read_points


def main() -> None:
    """Prints a table of micro-batches and the errors of each profile named."""
    for name in sys.argv[1:]:
        table, header = profile_files(Path(name))
        head = read_json(header)
        model = TableLatencyModel.read(table, block_size=head["block_size"])
        _say(f"\n{table.name}: {closing_sentence(head)}")
        _say(
            f"other_share {model.other_share:.3f}, ms_per_token {model.ms_per_token:.5f}, "
            f"optimizer {head['optimizer_ms']:.1f} ms, memory {head['memory']}, "
            f"model {head['model_gib']} GiB, adjustments {head['adjustments']}, "
            f"mape_at_top_k {head['error']['mape_at_top_k']:.3f}, "
            f"analytic mape {head['analytic']['error']['mape']:.3f}, skipped {head['skipped']}"
        )
        show_micro_batches(model, read_points(table))


def show_micro_batches(model: TableLatencyModel, points: list[MeasuredPoint]) -> None:
    """Prints measured and predicted times of whole micro-batches, short ones first."""
    whole = [p for p in points if p.part in ("floor", "micro_batch", *KNOWN, "memory")]
    tokens = np.array([sum(p.packed) for p in whole])
    predicted = predict_micro_batches(model, whole, work_share=model.shares.of(tokens))
    _say("part         length x packed top_k again held   measured  predicted ratio   peak GiB")
    for i in np.argsort(tokens, kind="stable").tolist():
        p, guess = whole[i], float(predicted[i])
        peak = "" if p.peak_gib is None else f"{p.peak_gib:8.2f}"
        _say(
            f"{p.part:12} {p.length:6} x {p.num_sequences:<6} {p.top_k:5} {p.recompute!s:5}"
            f" {p.held_out!s:5} {p.median_ms:9.1f} {guess:9.1f} {p.median_ms / guess:6.3f} {peak}"
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
