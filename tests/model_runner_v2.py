"""vLLM's scheduler and its Model Runner V2, which every GPU runs, driven on CPU as far as it goes without Triton.

Real are the scheduler with its prefix cache, the runner's request states, batches and pooling, and our pooler. The
model is a function of a prompt's prefix, so that a hidden state that belongs elsewhere is a wrong number. Replaced are
four kernels: one copies what was staged into a table, three fill the model's inputs, which no pooler sees.
"""

from collections import deque
from collections.abc import Callable, Sequence
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
from vllm.config import vllm as vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.pooling_params import PoolingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.worker.gpu import buffer_utils, model_runner
from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor
from vllm.v1.worker.gpu.input_batch import InputBuffers
from vllm.v1.worker.gpu.pool.pooling_runner import PoolingRunner
from vllm.v1.worker.gpu.states import RequestState

BLOCK_SIZE = 4
PADDING = 3
"""Rows of noise behind a batch, as a CUDA graph's batch has them."""


class _PlainBuffer:
    """In place of memory that CPU and GPU share: on CPU it is one and the same."""

    def __init__(self, size, dtype):
        self.cpu = self.uva = torch.zeros(size, dtype=dtype)
        self.np = self.cpu.numpy()


class _CalledPlainBuffer(_PlainBuffer):
    """The same for a vLLM whose `uva` is a method."""

    def __init__(self, size, dtype):
        super().__init__(size, dtype)
        self.uva = lambda count=None: self.cpu if count is None else self.cpu[:count]


class _ApplyWrites:
    """In place of the kernel that copies staged rows into a table."""

    def __getitem__(self, grid):
        def apply(table, stride, rows, starts, contents, ends, *_, **__):
            begin = 0
            for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
                values = contents[begin:end]
                if table.dim() == 1:
                    table[row + start : row + start + len(values)] = values
                else:
                    table[row, start : start + len(values)] = values
                begin = end

        return apply


def without_triton(monkeypatch) -> None:
    """Replaces what does not run on CPU, and lets vLLM choose its runner as where Triton is."""

    def copy(values, out=None, device=None):
        values = torch.as_tensor(values)
        return values.clone() if out is None else out.copy_(values)

    monkeypatch.setattr(vllm_config, "HAS_TRITON", True)
    monkeypatch.setattr(buffer_utils, "_apply_write_kernel", _ApplyWrites())
    if hasattr(model_runner, "async_copy_to_gpu"):
        monkeypatch.setattr(buffer_utils, "UvaBuffer", _PlainBuffer)
        monkeypatch.setattr(model_runner, "async_copy_to_gpu", copy)
    else:  # a newer vLLM, whose copies work on CPU too
        monkeypatch.setattr(buffer_utils, "UvaBuffer", _CalledPlainBuffer)
        monkeypatch.setattr(buffer_utils, "is_uva_available", lambda: True)
    for kernel in ("prepare_prefill_inputs", "prepare_pos_seq_lens", "combine_sampled_and_draft_tokens"):
        monkeypatch.setattr(model_runner, kernel, lambda *_: None)


class _Silent:
    """A collaborator of the runner that pooling does not concern; whatever it is told, it does nothing."""

    num_new_sampled_tokens_per_step = 1

    def __getattr__(self, name):
        return lambda *_, **__: None


def _embed(input_ids):
    """vLLM looks for it in a model."""


def _forward(input_ids, positions):
    """As `_embed`."""


class EngineV2:
    """One engine with `blocks` blocks of keys and values of `BLOCK_SIZE` tokens, one of which is vLLM's null block.

    `hidden_state(tokens) -> (H,)` is the model: of a prefix, the hidden state of its last token. `preemptions` and
    `cached_tokens` count what has happened.
    """

    def __init__(
        self,
        model_path: str,
        pooler: Any,
        hidden_state: Callable[[Sequence[int]], torch.Tensor],
        *,
        blocks: int,
        async_scheduling: bool,
        chunk: int,
    ) -> None:
        self.hidden_state, self.preemptions, self.cached_tokens = hidden_state, 0, 0
        self.config = EngineArgs(
            model=model_path,
            runner="pooling",
            hf_overrides={"architectures": ["LlamaForStepReward"], "prm": {"reward_token_ids": [1, 2]}},
            max_model_len=64,
            max_num_seqs=4,
            max_num_batched_tokens=24,
            enable_chunked_prefill=True,
            enable_prefix_caching=True,
            long_prefill_token_threshold=chunk,
            enforce_eager=True,
            async_scheduling=async_scheduling,
        ).create_engine_config()
        assert self.config.use_v2_model_runner
        self.config.cache_config.num_gpu_blocks = blocks
        spec = FullAttentionSpec(block_size=BLOCK_SIZE, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.scheduler = (AsyncScheduler if async_scheduling else Scheduler)(
            self.config,
            KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
            StructuredOutputManager(self.config),
            block_size=BLOCK_SIZE,
        )
        self.depth = 2 if async_scheduling else 1
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(BLOCK_SIZE, sha256)
        self.runner = self._runner(pooler)
        self.runner.pooling_runner.dummy_pooler_run(torch.zeros(24, len(hidden_state([0]))))  # as vLLM's warm-up
        self.requests = 0

    def _runner(self, pooler: Any) -> model_runner.GPUModelRunner:
        runner = object.__new__(model_runner.GPUModelRunner)
        device, silent = torch.device("cpu"), _Silent()
        model = SimpleNamespace(is_pooling_model=True, pooler=pooler, forward=_forward, embed_input_ids=_embed)
        vars(runner).update(
            device=device,
            model_config=self.config.model_config,
            max_num_reqs=4,
            decode_query_len=1,
            input_buffers=InputBuffers(4, 24 + PADDING, device),
            req_states=RequestState(4, 64, 24, 0, 128, device),
            pooling_runner=PoolingRunner(model, self.config),
            is_last_pp_rank=True,
            **dict.fromkeys(("use_dcp", "use_pp"), False),
            **dict.fromkeys(("sampler", "pp_handler", "encoder_cache", "prompt_logprobs_worker"), None),
            **dict.fromkeys(("adaptive_verification", "pcp_manager", "kv_block_zeroer", "fast_prefill"), None),
            **dict.fromkeys(("model_state", "lora_state", "block_tables"), silent),
        )
        return runner

    def pool(self, prompts: Sequence[tuple[list[int], PoolingParams]]) -> list[tuple[torch.Tensor, int]]:
        """For each prompt what its pooler gave, and how many of its tokens came from the prefix cache."""
        names = []
        for tokens, params in prompts:
            self.requests += 1
            names.append(f"r{self.requests}")
            self.scheduler.add_request(Request(names[-1], tokens, None, params, block_hasher=self.hasher))
        answers: dict[str, tuple[torch.Tensor, int]] = {}
        running: deque = deque()
        while self.scheduler.has_unfinished_requests() or running:
            if self.scheduler.has_unfinished_requests():
                scheduled = self.scheduler.schedule()
                self.preemptions += len(scheduled.preempted_req_ids or ())
                running.append((scheduled, self._execute(scheduled)))
                if len(running) < self.depth:
                    continue
            for outputs in self.scheduler.update_from_output(*running.popleft()).values():
                for output in outputs.outputs:
                    cached = output.prefill_stats.num_cached_tokens if output.prefill_stats else 0
                    self.cached_tokens += cached
                    answers[output.request_id] = (output.pooling_output, cached)
        return [answers[name] for name in names]

    def _execute(self, scheduled: Any) -> ModelRunnerOutput:
        runner = self.runner
        runner.finish_requests(scheduled)
        runner.add_requests(scheduled)
        runner.update_requests(scheduled)
        if not scheduled.total_num_scheduled_tokens:
            return ModelRunnerOutput(req_ids=[], req_id_to_index={})
        state, _ = runner.gather_batch_req_state(scheduled, dummy_run=False)
        padded = BatchExecutionDescriptor(cg_mode=None, num_tokens=state.num_tokens + PADDING, num_reqs=None)
        adapters = {"num_active_loras": 0} if "num_active_loras" in signature(runner.prepare_inputs).parameters else {}
        batch = runner.prepare_inputs(scheduled, state, padded, **adapters)
        hidden = torch.cat([self._forward(batch), torch.full((PADDING, len(self.hidden_state([0]))), torch.nan)])
        pooled, finished = runner.pooling_runner.pool(hidden, batch, runner.req_states)
        runner.req_states.num_computed_tokens.gpu[batch.idx_mapping] += torch.from_numpy(batch.num_scheduled_tokens)
        return ModelRunnerOutput(
            req_ids=batch.req_ids,
            req_id_to_index={name: index for index, name in enumerate(batch.req_ids)},
            pooler_output=[output if done else None for output, done in zip(pooled, finished, strict=True)],
        )

    def _forward(self, batch: Any) -> torch.Tensor:
        """The hidden states of a batch's tokens, at the places and positions that the runner gave them."""
        rows = []
        for index, computed, count in zip(
            batch.idx_mapping.tolist(), batch.num_computed_tokens_np, batch.num_scheduled_tokens, strict=True
        ):
            tokens = self.runner.req_states.all_token_ids.gpu[index].tolist()
            rows += [self.hidden_state(tokens[: end + 1]) for end in range(computed, computed + count)]
        return torch.stack(rows)
