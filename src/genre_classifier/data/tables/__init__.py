"""Tables on disk, for training and prediction alike: CSV, TSV and Parquet as columns; FMA's as one Parquet file.

Uses files and the names of features/.
"""
