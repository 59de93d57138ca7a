"""Attention inside Hugging Face models: registered by name, budgets given with each call."""

from sbcore.attention.call import AttentionCall, BudgetSource, FixedBudgets
from sbcore.attention.interface import ATTENTION_NAME, register_attention

__all__ = ["ATTENTION_NAME", "AttentionCall", "BudgetSource", "FixedBudgets", "register_attention"]
