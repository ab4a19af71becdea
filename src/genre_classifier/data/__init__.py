"""From a file of features to standardised batches."""
