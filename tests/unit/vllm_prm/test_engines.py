"""Arguments of engines that differ from vLLM's defaults."""

import os

from vllm_prm.engines import cpu_defaults, heed_cache_size


def test_cpu_defaults_leave_a_sized_cache_alone(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert cpu_defaults({}) == {"dtype": "float32", "block_size": 32, "kv_cache_memory_bytes": 1 << 30}
    assert cpu_defaults({"gpu_memory_utilization"}) == {"dtype": "float32", "block_size": 32}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert cpu_defaults({}) == {"dtype": "float32", "block_size": 32}


def test_a_size_that_is_given_counts(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    heed_cache_size({"dtype": "float32"})
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4"
    heed_cache_size({"kv_cache_memory_bytes": 1 << 20})
    assert "VLLM_CPU_KVCACHE_SPACE" not in os.environ
