"""The frozen base model: how it is loaded, and how a micro-batch goes through it."""
