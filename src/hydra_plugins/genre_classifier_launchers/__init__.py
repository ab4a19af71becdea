"""Where Hydra looks for this project's launchers."""
