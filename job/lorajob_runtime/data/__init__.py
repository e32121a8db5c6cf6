"""From a dataset file to token rows: reading, forms, chat templates, tokens, and the check that a person reads.

Importing this package costs nothing; `prepare` and `check` load the libraries they need when they are called.
"""
