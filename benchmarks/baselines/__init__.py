"""What isotone is measured against: other coders of ranks, other data-free weight formats."""
