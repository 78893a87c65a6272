"""The version of this package, known without its being installed."""

__all__ = ["__version__"]

__version__ = "0.1.0"
