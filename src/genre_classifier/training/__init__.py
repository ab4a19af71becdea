"""One run from its configuration to its folder: the LightningModule, fit, callbacks, loggers, resuming.

Start at fit.py: `train(cfg) -> Result` is behind train.py, every launcher and every test. The fast path is engine/.
"""
