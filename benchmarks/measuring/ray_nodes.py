"""Start a Ray cluster on this machine: a head without cores, and nodes with one core each.

    python benchmarks/measuring/ray_nodes.py 2

Every node is held to a core of its own. The script prints the address of the cluster and ends when
its standard input ends.
"""

import argparse
import os
import sys

QUIET = {"include_dashboard": False}


def start(n_nodes: int):
    """Start the cluster, pin each node to one core, and return the cluster."""
    import psutil
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})
    for core in sorted(os.sched_getaffinity(0))[:n_nodes]:
        before = set(psutil.Process().children(recursive=True))
        cluster.add_node(num_cpus=1, **QUIET)
        for process in set(psutil.Process().children(recursive=True)) - before:
            process.cpu_affinity([core])  # inherited by the processes that the node starts
    cluster.wait_for_nodes()
    return cluster


def main() -> None:
    """Start the cluster, print its address, and wait for the end of standard input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("nodes", type=int, help="the number of nodes, at most the number of cores")
    cluster = start(parser.parse_args().nodes)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
