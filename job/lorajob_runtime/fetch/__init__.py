"""A base model's files on this machine: from a hub, an S3 prefix, a Python package or a folder, in one cache.

Nothing here loads a model or imports torch; hub clients run in a process of their own.
"""

from lorajob_runtime.fetch.resolve import FetchedModel, fetch, fetch_embedded, fetch_tokenizer

__all__ = ["FetchedModel", "fetch", "fetch_embedded", "fetch_tokenizer"]
