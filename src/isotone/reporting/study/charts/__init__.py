"""The charts of a study, one module for each."""
