"""Arguments of engines that differ from vLLM's defaults."""

from vllm_prm.engines import cpu_defaults


def test_cpu_defaults_leave_a_sized_cache_alone(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert cpu_defaults({}) == {"dtype": "float32", "block_size": 32, "kv_cache_memory_bytes": 1 << 30}
    assert cpu_defaults({"gpu_memory_utilization"}) == {"dtype": "float32", "block_size": 32}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert cpu_defaults({}) == {"dtype": "float32", "block_size": 32}
