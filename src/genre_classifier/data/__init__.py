"""From files to batches: FeatureTable, splits, the StandardScaler, the LightningDataModule.

Start at table.py, then splits.py and datamodule.py. Uses config, features and files.
"""
