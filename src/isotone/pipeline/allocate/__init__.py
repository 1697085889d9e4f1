"""How bits are shared out between the matrices of a model."""
