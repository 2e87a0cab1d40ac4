"""Writing results."""

from vllm_prm.durable_file import write_atomically

__all__ = ["write_atomically"]
