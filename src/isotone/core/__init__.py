"""One tensor: its scales, histogram and clustering, and what it costs; pure functions of arrays."""
