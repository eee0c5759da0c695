"""Raw images to a judged report, as a graph of DVC stages."""

__version__ = "0.1.0"
