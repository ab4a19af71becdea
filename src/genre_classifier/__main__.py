"""``python -m genre_classifier`` runs the console command."""

import sys

from genre_classifier.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
