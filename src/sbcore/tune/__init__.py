"""Tuning: budgets follow the load, bounded by what routing coverage allows."""
