"""Compress a model, and verify, decompress and inspect the result."""
