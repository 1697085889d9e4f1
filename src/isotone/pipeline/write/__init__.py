"""Writing shards of clustered tensors, and the files beside them."""
