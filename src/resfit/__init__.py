"""resfit fits the most accurate residual image classifier into a budget."""

__version__ = "0.1.0"
