"""Prometheus metrics of `POST /v1/step_rewards`, on vLLM's own `/metrics`.

They live in prometheus_client's default registry, which `/metrics` shows; with several API server processes vLLM sets
PROMETHEUS_MULTIPROC_DIR before it starts them, prometheus_client then keeps these values in that folder, and `/metrics`
of any process shows the sum. Import this module in the server process only, where that variable is already set.
"""

from prometheus_client import Counter, Histogram

from vllm_prm.scorer import Usage

_LABELS = ("model_name",)
_REQUESTS = Counter("vllm_prm:requests", "Requests received, refused ones included.", _LABELS)
_ERRORS = Counter("vllm_prm:errors", "Requests answered with an error, by HTTP status.", (*_LABELS, "status"))
_CANCELLED = Counter("vllm_prm:cancelled_requests", "Requests dropped because the client went away.", _LABELS)
_SOLUTIONS = Counter("vllm_prm:solutions", "Solutions scored.", _LABELS)
_STEPS = Counter("vllm_prm:steps", "Reasoning steps scored.", _LABELS)
_PROMPT = Counter("vllm_prm:prompt_tokens", "Tokens of the rendered solutions.", _LABELS)
_CACHED = Counter("vllm_prm:cached_tokens", "Of the prompt tokens: spared by the score or prefix cache.", _LABELS)
_COMPUTED = Counter("vllm_prm:computed_tokens", "Tokens forwarded through the model.", _LABELS)
_HITS = Counter("vllm_prm:score_cache_hits", "Steps whose score was remembered.", _LABELS)
_GENERATED = Counter("vllm_prm:generated_tokens", "Tokens of critiques (generative PRMs).", _LABELS)
_CRITIQUES = Counter("vllm_prm:critiques", "Critiques written (generative PRMs).", _LABELS)
_MALFORMED = Counter("vllm_prm:malformed_judgements", "Judgements in critiques that could not be read.", _LABELS)
_EMPTY = Counter("vllm_prm:empty_critiques", "Critiques without a word (generative PRMs).", _LABELS)
_CUT_OFF = Counter("vllm_prm:cut_off_critiques", "Critiques that ran into the limit of tokens.", _LABELS)
_LATENCY = Histogram(
    "vllm_prm:request_latency_seconds",
    "Time from a request's arrival to its answer, for requests that were answered without an error.",
    _LABELS,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)

_OF_USAGE = {
    "requests": _SOLUTIONS,
    "steps": _STEPS,
    "prompt_tokens": _PROMPT,
    "cached_tokens": _CACHED,
    "computed_tokens": _COMPUTED,
    "score_cache_hits": _HITS,
    "generated_tokens": _GENERATED,
    "critiques": _CRITIQUES,
    "malformed": _MALFORMED,
    "empty_critiques": _EMPTY,
    "cut_off_critiques": _CUT_OFF,
}
"""Field of `Usage` -> counter."""


class StepRewardMetrics:
    """The counters of one served model."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        for metric in (_REQUESTS, _CANCELLED, _LATENCY, *_OF_USAGE.values()):
            metric.labels(model_name)  # a series that has not moved yet shows as 0 instead of being absent

    def received(self) -> None:
        """A request came in."""
        _REQUESTS.labels(self.model_name).inc()

    def answered(self, seconds: float) -> None:
        """A request was answered without an error, `seconds` after it came in."""
        _LATENCY.labels(self.model_name).observe(seconds)

    def failed(self, status: int) -> None:
        """A request was answered with the HTTP `status`."""
        _ERRORS.labels(self.model_name, str(status)).inc()

    def cancelled(self) -> None:
        """The client went away before the answer."""
        _CANCELLED.labels(self.model_name).inc()

    def scored(self, usage: Usage) -> None:
        """Add what was scored."""
        for name, counter in _OF_USAGE.items():
            counter.labels(self.model_name).inc(getattr(usage, name))
