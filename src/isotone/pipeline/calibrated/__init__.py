"""Compressing by statistics of what an error in each matrix does to the model's predictions."""
