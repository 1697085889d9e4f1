"""A study's runs as charts and claims: plain records in, no model code."""
