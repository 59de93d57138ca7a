"""What stands between a layer's products, in one launch and one pass over memory each.

The modules import triton, so they are imported where a GPU computes.
"""
