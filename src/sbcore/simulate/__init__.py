"""Variants compared on a file of lengths without a GPU: nothing in here is a measured result."""
