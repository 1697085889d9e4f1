"""How the benchmarks measure: commands from outside, the disk, a Ray cluster, tables of results."""
