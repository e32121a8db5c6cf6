"""A model's chat template and tokenizer: conversations as text, as tokens, and what a template can say."""
