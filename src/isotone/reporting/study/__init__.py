"""The page of a study: runs as charts and tables, and what they have in common."""
