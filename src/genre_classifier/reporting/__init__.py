"""A run or sweep as one HTML file: what its folder tells, figures, and what its rows tell besides."""
