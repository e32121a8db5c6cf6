"""The result of a run: the adapter as plain PEFT loads it, with tokenizer and model card. Uploads nothing."""

from lorajob_runtime.publish.adapter import publish
from lorajob_runtime.publish.adapter_info import AdapterInfo

__all__ = ["AdapterInfo", "publish"]
