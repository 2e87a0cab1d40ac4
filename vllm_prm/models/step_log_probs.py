"""Causal LMs that give the log-probability of each step's tokens: one number per step, for implicit PRMs.

The log-probability of token t is read from the hidden state at t - 1:

    log pi(y_t | y_<t) = z_t[y_t] - log sum_v exp(z_t[v]),    z_t = W h_(t-1)

A request names spans [first, end) of hidden states (`PoolingParams.extra_kwargs["spans"]`) and the token that follows
each of them (`"targets"`, one list for all spans in order); the head runs on these positions only. Positions inside a
cached prefix are not forwarded and are missing from the front of a span; the row says how many were there.

The full head is applied in float32 whatever the model's dtype: bfloat16 logits of size 20 are 0.125 apart, and a step
sums hundreds of them. Positions and vocabulary are taken in pieces, so memory does not grow with either.

Shapes: T tokens scheduled in this engine step over all requests, H hidden size, P positions read, V vocabulary.
"""

import sys
from collections.abc import Callable, Set

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import Pooler
from vllm.tasks import PoolingTask
from vllm.v1.pool.metadata import PoolingMetadata

from vllm_prm.architectures import STEP_LOG_PROBS
from vllm_prm.models.backbone import step_model
from vllm_prm.models.language_head import LanguageHead, Product
from vllm_prm.models.tensor_parallel import rank_rows, sum_over_ranks

POSITIONS_AT_ONCE = 1024
VOCABULARY_AT_ONCE = 16_384


def __getattr__(name: str) -> type[nn.Module]:
    """`Qwen2ForStepLogProbs` and so on, for every backbone of vLLM's registry."""
    return step_model(sys.modules[__name__], name, StepLogProbs, STEP_LOG_PROBS)


class StepLogProbPooler(Pooler):
    """Rows `[end, positions, sum]`, float64, one per span: the sum of the log-probabilities of the targets over the
    last `positions` hidden states of the span that ends before `end`.

    `positions` is below the span's length where its front lay in a cached prefix, and 0 where all of it did. Spans of
    a request rise and do not overlap. `target_log_probs(hidden (P, H), targets (P,)) -> (P,)` is the model's head.
    """

    def __init__(self, target_log_probs: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.target_log_probs = target_log_probs

    def get_supported_tasks(self) -> Set[PoolingTask]:
        return {"token_classify"}

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: PoolingMetadata) -> list[torch.Tensor | None]:
        """(T, H) -> per request (spans, 3) once its prompt is complete, None before."""
        cursor = pooling_metadata.get_pooling_cursor()
        scheduled = cursor.num_scheduled_tokens_cpu.tolist()
        seq_lens = cursor.seq_lens_cpu.tolist()
        wanted = [(params.extra_kwargs or {}).get("spans", ()) for params in pooling_metadata.pooling_params]

        rows: list[int] = []
        targets: list[int] = []
        pieces: list[tuple[int, int, int]] = []  # request, number of its span, positions
        offset = 0
        for request, state in enumerate(pooling_metadata.pooling_states):
            start = seq_lens[request] - scheduled[request]
            # vLLM keeps this list per request and clears it when the request is dropped. Its first entry says how far
            # the sums have come: a preempted request runs its tokens again, which must not count twice.
            if not state.hidden_states_cache:
                empty = torch.zeros(len(wanted[request]), 2, dtype=torch.float64, device=hidden_states.device)
                state.hidden_states_cache[:] = [torch.tensor(0), empty]
            done = int(state.hidden_states_cache[0])
            if start > done > 0:
                # Resumed behind a prefix that others have cached meanwhile: what lies before it is not seen any more,
                # and `positions` counts back from a span's end.
                for number, (first, end) in enumerate(wanted[request]):
                    if first < start and end > done:
                        state.hidden_states_cache[1][number] = 0.0
            before = 0
            for number, (first, end) in enumerate(wanted[request]):
                low, high = max(first, start, done), min(end, seq_lens[request])
                if low < high:
                    rows += range(offset + low - start, offset + high - start)
                    given = pooling_metadata.pooling_params[request].extra_kwargs["targets"]
                    targets += given[before + low - first : before + high - first]
                    pieces.append((request, number, high - low))
                before += end - first
            state.hidden_states_cache[0] = torch.tensor(max(done, seq_lens[request]))
            offset += scheduled[request]

        if pieces:
            self._add(hidden_states, rows, targets, pieces, pooling_metadata.pooling_states)

        output: list[torch.Tensor | None] = []
        for request, finished in enumerate(cursor.get_finished_mask()):
            if not finished:
                output.append(None)
                continue
            state = pooling_metadata.pooling_states[request]
            sums = state.hidden_states_cache[1]
            ends = torch.tensor([end for _, end in wanted[request]], dtype=torch.float64, device=sums.device)
            output.append(torch.cat([ends.unsqueeze(1), sums], dim=1))
            state.clean()
        return output

    def _add(self, hidden_states, rows, targets, pieces, states):
        device = hidden_states.device
        index = torch.tensor(rows, dtype=torch.long, device=device)
        log_probs = self.target_log_probs(
            hidden_states.index_select(0, index), torch.tensor(targets, dtype=torch.long, device=device)
        )
        counts = [count for *_, count in pieces]
        for (request, number, count), piece in zip(pieces, log_probs.double().split(counts), strict=True):
            sums = states[request].hidden_states_cache[1]
            sums[number, 0] += count
            sums[number, 1] += piece.sum()


class StepLogProbs:
    """Mixed into a vLLM causal LM; adds `pooler`."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.language_head = LanguageHead(self)
        self.pooler = StepLogProbPooler(self.target_log_probs)

    def target_log_probs(self, hidden_states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probability of each target under the full vocabulary, float32: (P, H), (P,) -> (P,)."""
        pieces = zip(hidden_states.split(POSITIONS_AT_ONCE), targets.split(POSITIONS_AT_ONCE), strict=True)
        return torch.cat([self._log_probs(hidden, target) for hidden, target in pieces])

    def _log_probs(self, hidden_states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each rank of a tensor-parallel head takes the rows it holds; normalisers and target logits are combined. A
        quantised head has no plain rows to take in pieces; it is applied whole, in its own precision."""
        shard = None

        def rows(begin: int) -> Product:
            """The product with the rows of the vocabulary, as far as this rank holds it, from `begin`."""

            def product(lm_head: nn.Module, states: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
                nonlocal shard
                shard = lm_head.shard_indices
                # Rows beyond num_org_elements are padding and no part of the vocabulary.
                end = min(begin + VOCABULARY_AT_ONCE, shard.num_org_elements)
                logits = states.float() @ lm_head.weight[begin:end].float().T
                return logits if bias is None else logits + bias[begin:end].float()

            return product

        target_logits = torch.zeros(len(hidden_states), device=hidden_states.device)
        # A rank of a small vocabulary may hold padding alone.
        normalisers = [torch.full_like(target_logits, -torch.inf)]
        begin = 0
        while shard is None or begin < shard.num_org_elements:
            logits, in_pieces = self.language_head.logits(hidden_states, rows(begin))
            if not in_pieces:
                return _of_all(logits, targets, hidden_states)
            local = targets - shard.org_vocab_start_index - begin
            inside = (local >= 0) & (local < logits.shape[1])
            if logits.shape[1]:
                normalisers.append(logits.logsumexp(1))
                picked = logits.gather(1, torch.where(inside, local, 0).unsqueeze(1)).squeeze(1)
                target_logits += torch.where(inside, picked, 0.0)
            begin += VOCABULARY_AT_ONCE
        normaliser = torch.stack(normalisers, dim=1).logsumexp(1)
        target_logits, *normalisers = sum_over_ranks(torch.cat([target_logits.unsqueeze(0), rank_rows(normaliser)]))
        return target_logits - torch.stack(normalisers).logsumexp(0)


def _of_all(logits: torch.Tensor | None, targets: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
    if logits is None:  # the gather of a tensor-parallel head leaves a result on rank 0 only
        return hidden_states.new_zeros(len(hidden_states), dtype=torch.float32)
    logits = logits.float()
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
