"""What the records of a study say: pure functions from runs to figures and sentences."""
