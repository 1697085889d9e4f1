"""Statistics of the activations and gradients at the matrices of a language model."""
