"""One training run: the LightningModule, what is recorded on the way, and ``train(cfg) -> Result``."""
