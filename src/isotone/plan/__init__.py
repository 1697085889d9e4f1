"""What happens to each tensor, decided before any weight is read."""
