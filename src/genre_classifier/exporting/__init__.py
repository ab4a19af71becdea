"""From a finished run to the production bundle: which checkpoint, the evidence for it, and ``export(cfg)``."""
