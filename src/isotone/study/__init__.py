"""What the order of the centroids is worth: codebooks changed while the assignments stay."""
