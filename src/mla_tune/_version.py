"""The version of this package, apart from `mla_tune`, which imports tables and tuning."""

__all__ = ["__version__"]

__version__ = "0.1.0"
