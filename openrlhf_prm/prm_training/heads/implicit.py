"""An implicit PRM: a language model trained on outcomes alone (arXiv:2412.01981, with the cross-entropy loss).

    z = beta * sum over the response's tokens of ( log pi(y_t | y_<t) - log pi_ref(y_t | y_<t) )

The same sum up to the end of a step is then that step's value, without any step label. pi_ref is frozen: the checkpoint
the training starts from, or `--prm.reference`; with pi = pi_ref, z is 0 and the first loss is log 2. The response is
written by the family `implicit` with exact step boundaries, a blank line after every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf_prm.options import Options, option
from openrlhf_prm.prm_training.heads.head import PRMHead

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import PaddedSolutions


@dataclass(frozen=True, kw_only=True)
class ImplicitHeadOptions(Options):
    """beta as in PRIME (arXiv:2502.01456)."""

    reference: str | None = option(None, "frozen reference model; the model to start from if left out", kind=str)
    beta: float = option(0.05, "coefficient of the log-ratio", above=0)


class ImplicitHead(PRMHead):
    """Log-ratio to a reference model; see the module's formula."""

    name = "implicit"
    reads_chat_template = False
    Options = ImplicitHeadOptions
    outcome = True
    rate = 1e-6  # one step moves the log-probability of every token of the response, and z is their sum

    def family_options(self) -> dict[str, Any]:
        reference = self.options.reference or self.model
        # The result names its reference, and may be served from another folder.
        reference = str(Path(reference).resolve()) if Path(reference).is_dir() else reference
        return {"reference": reference, "beta": self.options.beta, "boundaries": "exact"}

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path, **arguments)

    def reference(self) -> str | None:
        return self.family.options.reference

    def raw(self, actor: Any, reference: Any, batch: PaddedSolutions) -> torch.Tensor:
        """Log-probabilities of the response up to each step's end under model and reference: (S, 2)."""
        import torch

        with torch.no_grad():
            other = response_sums(reference, batch)
        return torch.stack([response_sums(actor, batch), other], dim=-1)

    def log_odds(self, raw: torch.Tensor, batch: PaddedSolutions) -> torch.Tensor:
        """From the sums at the last step of each solution: (B,)."""
        last = batch.step_rows.bincount(minlength=len(batch.rows)).cumsum(0) - 1
        return self.family.options.beta * (raw[last, 0] - raw[last, 1])


def response_sums(actor: Any, batch: PaddedSolutions) -> torch.Tensor:
    """Sum of log pi(y_t | y_<t) over the tokens after `first` up to each step's position, fp32: (S,); 0 where the step
    ends with the question."""
    import torch

    log_probs = actor(batch.token_ids, attention_mask=batch.attention_mask, return_logprobs=True).float()
    # Column t holds the log-probability of token t + 1.
    columns = torch.arange(log_probs.shape[1], device=log_probs.device)
    sums = (log_probs * (columns >= batch.first[:, None])).cumsum(dim=1)
    return torch.nn.functional.pad(sums, (1, 0))[batch.step_rows, batch.step_tokens]
