"""Scales of rows and columns: how they are found, and how they are stored."""
