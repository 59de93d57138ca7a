"""The latency model: measured milliseconds by length and top_k, and how far to trust them."""
