"""A policy at work on questions: what its engines are, what is asked of them, and how long they live."""

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from openrlhf_prm.cluster.context_length import model_context
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.data.prompts import PromptOptions, check_lengths, prompt_maker
from openrlhf_prm.data.questions import Question
from vllm_prm.durable_file import checkpoint_state
from vllm_prm.extension_files import absolute, names_file


@dataclass(frozen=True, kw_only=True)
class PolicyRun:
    """The questions, the policy that answers them, and where it runs: in `engines.num_engines` engines of its own, or
    behind `urls`. `in_flight`: questions in the hands of an engine at a time.
    """

    questions: tuple[Question, ...]
    prompts: PromptOptions
    answer_checker: str
    engines: EngineOptions
    urls: tuple[str, ...] = ()
    in_flight: int = 64

    @property
    def policy(self) -> str:
        """Its checkpoint."""
        return self.engines.model

    @property
    def own_engines(self) -> dict[str, EngineOptions]:
        """Those that Ray places, by the prefix of their flags."""
        return {} if self.urls else {"vllm": self.engines}

    @property
    def paths(self) -> list[tuple[str, str]]:
        """What the engines read, by flag; of a checker's file the path alone."""
        checker = absolute(self.answer_checker).partition(":")[0]
        own = [("--answers.checker", checker)] if names_file(checker) else []
        return [("--actor.model_name_or_path", self.policy), *own]

    def settings(self) -> dict:
        """What the policy's responses depend on besides how they are sampled."""
        return {
            "--actor.model_name_or_path": self.policy,
            "state of the policy": checkpoint_state(self.policy),
            "--data.input_template": self.prompts.input_template,
            "--data.apply_chat_template": self.prompts.apply_chat_template,
            "--answers.checker": self.answer_checker,
            "--vllm.dtype": self.engines.dtype,
            "--train.seed": self.engines.seed,
        }

    def unfinished(self, finished: Container[str]) -> list[Question]:
        """The questions whose ids are not among those that need no work."""
        return [question for question in self.questions if question.id not in finished]

    def prompt_maker(self, questions: Sequence[Question]) -> Callable[[str], str]:
        """The function from a question to what the policy reads. Raises QuestionTooLong for one of `questions`."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.policy)
        prompt_of = prompt_maker(self.prompts, tokenizer)
        check_lengths(questions, prompt_of, tokenizer, model_context(self.policy, self.engines.max_model_len))
        return prompt_of

    @contextlib.contextmanager
    def started_engines(self, annotator: type, options: object, prompt_of: Callable[[str], str]) -> Iterator[list]:
        """Engines that do with a question what `annotator` does (`actors.Work`); gone when the block ends.

        Raises TooFewGPUs where Ray's nodes have no room for them, and what starting an engine raises.
        """
        import ray

        from openrlhf_prm.annotation.actors import Work, start_engines
        from openrlhf_prm.cluster.spawning import found_from_anywhere

        work = Work(found_from_anywhere(self.policy), annotator, options, absolute(self.answer_checker))
        engines = start_engines(self.engines, self.urls, work, self.in_flight, prompt_of)
        try:
            yield engines
        finally:
            for engine in engines:
                ray.kill(engine.actor)  # before Ray itself, which would complain about each question in flight
