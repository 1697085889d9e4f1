"""Clustering a matrix by what its errors cost, as statistics of its inputs and outputs say."""
