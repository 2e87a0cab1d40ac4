"""Further attempts of a policy at each question, after those that are graded anyway: does it correct itself?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from openrlhf_prm.answers.checkers import extract_answer
from openrlhf_prm.data.attempts import AttemptOptions, joined, without_ending, words_between
from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.evaluation.responses import GradedResponse, LaterAttempt
from openrlhf_prm.measures.intervals import bootstrap_interval, mean, share_interval
from openrlhf_prm.measures.self_correction import edit_histogram, edit_ratio, right_to_wrong, wrong_to_right


@dataclass(frozen=True, kw_only=True)
class FurtherAttempts(AttemptOptions):
    """`--self_correction.<field>` of an evaluation."""

    prompts: PromptOptions = field(default_factory=PromptOptions)

    def words(self, tokenizer: Any) -> list[int]:
        """The tokens between two attempts."""
        return list(tokenizer(words_between(self, self.prompts, tokenizer), add_special_tokens=False)["input_ids"])

    def check_room(self, prompts: Sequence[str], tokenizer: Any, limit: int, context: int | None) -> None:
        """Raises ValueError where a prompt and all attempts of `limit` tokens may not fit into `context` tokens; None
        is no limit.
        """
        longest = len(tokenizer(max(prompts, key=len), add_special_tokens=False)["input_ids"])
        needed = longest + self.attempts * limit + (self.attempts - 1) * len(self.words(tokenizer))
        if context is not None and needed > context:
            raise ValueError(
                f"--self_correction.attempts {self.attempts} of {limit} tokens, with a question of {longest}, may need "
                f"{needed} tokens, and the policy's context is {context}: lower --self_correction.attempt_tokens"
            )

    async def after(
        self,
        first: Any,
        prompt: str,
        request_of: Callable[[int], dict],
        policy: Any,
        tokenizer: Any,
        is_correct: Callable[[str], bool],
    ) -> list[LaterAttempt]:
        """The attempts behind a first `Completion`. request_of: number of an attempt -> how it is sampled. In a chain
        an attempt is judged by the chain so far.
        """
        words = self.words(tokenizer)
        context = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        start, last = len(context), first
        attempts: list[LaterAttempt] = []
        for number in range(2, self.attempts + 1):
            written = without_ending(last.token_ids, not last.truncated, self.within_chain)
            context += [*written, *joined(written, words)]
            [last] = await policy.generate(list(context), **request_of(number))
            judged = last.text
            if self.within_chain:
                judged = tokenizer.decode([*context[start:], *last.token_ids], skip_special_tokens=True)
            attempts.append(
                LaterAttempt(
                    response=last.text,
                    answer=extract_answer(judged),
                    correct=bool(is_correct(judged)),
                    tokens=len(last.token_ids),
                    truncated=last.truncated,
                )
            )
        return attempts


def summarize_attempts(responses: Sequence[GradedResponse], seed: int = 0) -> dict:
    """What further attempts changed, over the sampled responses of each question, and over greedy ones under "greedy".

    accuracy: of each attempt. difference: the last one's less the first one's, which is wrong_to_right less
    right_to_wrong, exactly. copied: share of attempts whose text is that of the one before; edit_ratio and its
    histogram compare words. 95% intervals over questions stand under "intervals".
    """
    sampled = [response for response in responses if response.kind == "sample"]
    greedy = [response for response in responses if response.kind == "greedy"]
    return _changes(sampled, seed) | ({"greedy": _changes(greedy, seed)} if greedy else {})


def _changes(responses: Sequence[GradedResponse], seed: int) -> dict:
    groups: dict[int, list[GradedResponse]] = {}
    for response in responses:
        groups.setdefault(response.index, []).append(response)
    verdicts = [[[r.correct, *(a.correct for a in r.later)] for r in group] for group in groups.values()]
    texts = [[[r.response, *(a.response for a in r.later)] for r in group] for group in groups.values()]
    first = [[row[0] for row in group] for group in verdicts]
    last = [[row[-1] for row in group] for group in verdicts]
    pairs = [[pair for row in group for pair in zip(row, row[1:], strict=False)] for group in texts]
    ratios = [[edit_ratio(one.split(), other.split()) for one, other in group] for group in pairs]
    count = len(verdicts[0][0])
    columns = {
        f"accuracy_t{place + 1}": [_share([row[place] for row in g]) for g in verdicts] for place in range(count)
    }
    columns["difference"] = [_share(after) - _share(before) for before, after in zip(first, last, strict=True)]
    columns["wrong_to_right"] = [mean(wrong_to_right(*both)) for both in zip(first, last, strict=True)]
    columns["right_to_wrong"] = [mean(right_to_wrong(*both)) for both in zip(first, last, strict=True)]
    columns["copied"] = [_share([one.strip() == other.strip() for one, other in group]) for group in pairs]
    columns["edit_ratio"] = [mean(group) for group in ratios]
    result: dict = {name: mean(values) for name, values in columns.items()}
    bins = zip(*(edit_histogram(ratio) for group in ratios for ratio in group), strict=True)
    result["edit_histogram"] = [mean(shares) for shares in bins]
    no_shares = ("difference", "edit_ratio")
    intervals = {
        name: (bootstrap_interval if name in no_shares else share_interval)(values, seed=seed)
        for name, values in columns.items()
    }
    return {**result, "intervals": intervals}


def _share(verdicts: Sequence[bool]) -> float:
    return mean([float(verdict) for verdict in verdicts])
