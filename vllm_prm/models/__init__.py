"""Out-of-tree vLLM models; imported by vLLM only, through the names registered in `vllm_prm`."""
