"""Supervised tasks: data, models and training whose batch is made of examples."""
