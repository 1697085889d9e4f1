"""Ways to cluster the histogram of a matrix; each registers itself by name when it is imported."""

from isotone.core.clustering import entropy, kmeans

__all__ = ["entropy", "kmeans"]
