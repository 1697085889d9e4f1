"""What the benchmarks run on: scripts that make models, and published configurations."""
