"""What is known of a model before its weights are here: shapes, LoRA targets, memory, families. Standard library only.

Nothing here reads weights or imports torch.
"""
