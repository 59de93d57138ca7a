"""Quality: benchmark tasks, their metrics, greedy generation, and the scores of it all."""
