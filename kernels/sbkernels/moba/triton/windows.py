"""Query heads in windows, so that the float32 sums in memory stay bounded.

The sums of the gather kernels take 4 bytes x tokens x heads x D; the heads are independent, so
they are worked on a window at a time with one buffer. The atomics do not mind: one head at a time
is in flight anyway.
"""

# 2 windows at 64K tokens x 16 heads x D = 128; short calls have one.
SUMS_BYTES = 256 << 20


def head_windows(num_heads: int, num_tokens: int, head_dim: int) -> list[range]:
    """Returns the heads in windows of nearly equal size whose sums fit SUMS_BYTES (or one head)."""
    fitting = max(1, SUMS_BYTES // max(1, 4 * num_tokens * head_dim))
    num_windows = -(-num_heads // fitting)
    size = -(-num_heads // num_windows)
    return [range(at, min(at + size, num_heads)) for at in range(0, num_heads, size)]
