"""The embedded demo data: a table of features, and a few of the synthetic clips behind it. Data only."""
