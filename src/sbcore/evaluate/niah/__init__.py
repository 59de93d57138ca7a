"""Needle in a haystack: one fact at a chosen depth of a text of a chosen length, asked for.

Scores are shares of answers found as a substring, case ignored: no judge model.
"""
