"""Ranks as bytes, and a clustered tensor as named arrays."""
