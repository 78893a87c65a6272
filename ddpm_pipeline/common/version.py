"""The version of this package, in a file that builds read too."""

__all__ = ["__version__"]

__version__ = "0.1.0"
