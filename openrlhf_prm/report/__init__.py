"""A training run as one self-contained HTML page."""
