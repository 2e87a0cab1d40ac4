"""Several attempts at a question in one episode, through the host's agent interface.

The host's own multi-turn executor offers the first attempt all of `--data.max_len`, ends a turn where the text of one
begins that its tokens do not have, and adds the rewards of turns up. Here each attempt has a limit and a verdict of its
own, and the next one is asked for behind the tokens that the engine wrote.
"""

import asyncio
import logging
from copy import deepcopy

from openrlhf.utils.agent import AgentExecutorBase, SingleTurnAgentExecutor

from openrlhf_prm.answers.outcome_numbers import outcome_number
from openrlhf_prm.data.attempts import AttemptOptions, joined, without_ending, words_between
from openrlhf_prm.data.prompts import PromptOptions, prompt_maker
from openrlhf_prm.ppo.rollout.judging import reward_flag, verdict
from openrlhf_prm.ppo.self_correction.episode import Episode
from openrlhf_prm.ppo.self_correction.offline import OfflineAttempts
from openrlhf_prm.ppo.self_correction.records import Attempts

logger = logging.getLogger(__name__)


class AttemptsExecutor(AgentExecutorBase):
    """Writes N attempts and has each judged by the outcome reward of the host's single-turn executor, as an answer to
    the question alone, in a chain as all of the chain so far. The episode's reward is that of the last one.
    """

    def __init__(
        self,
        inner: SingleTurnAgentExecutor,
        options: AttemptOptions,
        prompts: PromptOptions,
        offline: OfflineAttempts | None = None,
    ):
        self.inner, self.options, self.prompts, self.offline = inner, options, prompts, offline
        self._words: list[int] | None = None

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        words = self._words_between(hf_tokenizer)
        episode = self._begun(prompt, sampling_params, max_length, words, hf_tokenizer)
        verdicts, truncated = [], []
        for attempt in range(self.options.attempts):
            last = attempt == self.options.attempts - 1
            if not attempt and (quoted := self._quoted(prompt, sampling_params, hf_tokenizer)):
                episode.quote(quoted)
                truncated.append(False)
                verdicts.append(asyncio.create_task(self._judge(*self._texts(episode, hf_tokenizer), prompt, label)))
                episode.say(joined(quoted, words))
                continue
            params = self._limited(sampling_params, max_length - len(episode.tokens), attempt)
            output = (await llm_engine.generate(list(episode.tokens), params)).outputs[0]
            truncated.append(output.finish_reason == "length")
            doubts = isinstance(output.stop_reason, str)  # the policy wrote the line between attempts itself
            ended = output.finish_reason == "stop" and not doubts
            written = without_ending(output.token_ids, ended, self.options.within_chain and not last)
            episode.write(written, output.logprobs)
            # Judged while the next one is written.
            texts = self._texts(episode, hf_tokenizer)
            verdicts.append(asyncio.create_task(self._judge(*texts, prompt, label)))
            if not last and not doubts:
                episode.say(joined(written, words))
        judged = await asyncio.gather(*verdicts)
        return {
            "prompt": prompt,
            "label": label,
            "images": images,
            "mm_train_inputs": None,
            "observation_tokens": episode.tokens,
            "action_ranges": episode.own_ranges,
            "rollout_log_probs": episode.log_probs,
            "truncated": truncated[-1],
            "reward": judged[-1][0],
            "scores": judged[-1][1],
            "extra_logs": judged[-1][2],
            "attempts": Attempts(
                ends=episode.ends,
                rewards=tuple(reward for reward, _, _ in judged),
                scores=tuple(score for _, score, _ in judged),
                truncated=tuple(truncated),
                offline=not episode.own[0],
            ),
        }

    def _quoted(self, prompt: str, sampling, tokenizer) -> list[int]:
        """The tokens of another policy's first attempt; none where the policy writes it."""
        text = self.offline.of(prompt, prompt_maker(self.prompts, tokenizer)) if self.offline else None
        if text is None:
            return []
        tokens = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        limit = self.options.attempt_tokens or sampling.max_tokens
        ending = [] if self.options.within_chain else [tokenizer.eos_token_id]  # as the policy's own have it
        return [*tokens[: limit - len(ending)], *ending]

    def _words_between(self, tokenizer) -> list[int]:
        if self._words is None:
            text = words_between(self.options, self.prompts, tokenizer) if self.options.attempts > 1 else ""
            self._words = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._words

    def _begun(self, prompt, sampling, max_length: int, words: list[int], tokenizer) -> Episode:
        """The prompt's tokens, of a long one the last, so that all attempts have their room."""
        tokens = list(tokenizer(text=prompt, add_special_tokens=False)["input_ids"])
        limit = self.options.attempt_tokens or sampling.max_tokens or 1
        room = max_length - self.options.attempts * limit - (self.options.attempts - 1) * len(words)
        if room < 1:
            raise ValueError(
                f"--data.max_len {max_length} has no room for {self.options.attempts} attempts of {limit} tokens with "
                f"{len(words)} tokens between them: lower --self_correction.attempt_tokens"
            )
        if len(tokens) > room:
            logger.warning("a prompt of %d tokens is cut to its last %d (--data.max_len)", len(tokens), room)
            tokens = tokens[-room:]
        return Episode(tokens, len(tokens), None if sampling.logprobs is None else [0.0] * len(tokens))

    def _limited(self, sampling, left: int, attempt: int):
        params = deepcopy(sampling)
        params.max_tokens = self.options.attempt_tokens or sampling.max_tokens or max(left, 1)
        # The host forbids to end at once, which a policy is far more likely to want here than at its first token: what
        # it wrote instead would have other log-probs than it had itself.
        params.min_tokens = 0 if attempt else min(params.min_tokens, params.max_tokens)
        if self.options.within_chain and attempt < self.options.attempts - 1:
            # A policy that has learned to doubt writes the line itself.
            params.stop = [self.options.asked]
        return params

    def _texts(self, episode: Episode, tokenizer) -> tuple[str, str]:
        """What is judged of the attempt that was written last: with the prompt, and alone."""
        start, end = episode.ranges[-1]
        if self.options.within_chain:
            start = episode.start
        whole = [*episode.tokens[: episode.start], *episode.tokens[start:end]]
        texts = (tokenizer.decode(tokens, skip_special_tokens=False) for tokens in (whole, episode.tokens[start:end]))
        return tuple(texts)

    async def _judge(self, text: str, response: str, prompt: str, label: str) -> tuple[float, float, dict]:
        """Reward, score, and what to log."""
        answer = await verdict(self.inner, text, response, prompt, label)
        source = reward_flag(self.inner)
        reward = outcome_number(answer["rewards"], source, prompt)
        score = answer.get("scores")
        score = reward if score is None else outcome_number(score, source, prompt)
        return reward, score, answer.get("extra_logs") or {}
