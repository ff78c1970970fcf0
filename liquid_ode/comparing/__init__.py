"""Solvers compared: error against work, another solver in a trained model, their tables, plots."""
