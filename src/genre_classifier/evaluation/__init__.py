"""What a number is worth: metrics, figures, and how they were obtained."""
