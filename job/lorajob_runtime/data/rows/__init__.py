"""Rows of a dataset file and the conversations that they become, by the standard library (and pyarrow for Parquet).

No tokenizer and no template: those are in `data.chat`.
"""
