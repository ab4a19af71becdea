"""``python -m genre_classifier``: the console command without its script."""

import sys

from genre_classifier.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
