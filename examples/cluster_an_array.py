"""Cluster one weight matrix with several numbers of centroids, and print the error of each.

    python examples/cluster_an_array.py MODEL

Everything after the model has been loaded is NumPy: `isotone.cluster` takes any matrix.
"""

import argparse

import numpy as np
from transformers import AutoModelForCausalLM

import isotone


def main() -> None:
    """Read the command line and run the example."""
    parser = argparse.ArgumentParser(description="Cluster the first matrix of a model's layers.")
    parser.add_argument("model", help="a dense model directory, or a hub id")
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32")
    name, parameter = next(
        (name, parameter)
        for name, parameter in model.named_parameters()
        if ".layers." in name and parameter.ndim == 2
    )
    weights = parameter.detach().numpy()
    print(f"{name}: {weights.shape[0]} rows, {weights.shape[1]} columns")
    for k in (4, 16, 64):
        tensor = isotone.cluster(weights, k=k)
        error = np.square(tensor.dense() - weights).sum() / np.square(weights).sum()
        print(f"K = {k:2}: relative error {error:.5f}, {len(tensor.protected_value)} protected")


if __name__ == "__main__":
    main()
