"""A Ray cluster on this machine: a head without cores, and nodes of one core, each held to its own.

    python benchmarks/ray_nodes.py 2

prints the address, and ends with its standard input.
"""

import os
import sys

import psutil
from ray.cluster_utils import Cluster

QUIET = {"include_dashboard": False}


def main() -> None:
    """Start, say where, wait."""
    cores = sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})
    for core in cores:
        before = set(psutil.Process().children(recursive=True))
        cluster.add_node(num_cpus=1, **QUIET)
        for process in set(psutil.Process().children(recursive=True)) - before:
            process.cpu_affinity([core])  # what they start inherits it
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
