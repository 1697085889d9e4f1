"""Where tasks run: on this machine, or on the nodes of a cluster."""
