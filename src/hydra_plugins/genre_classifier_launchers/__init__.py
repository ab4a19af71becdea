"""This project's launchers. Hydra looks for them here."""
