"""What the families share: options, the checkpoint they come from, and how messages are written."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from vllm_prm.architectures import STEP_REWARD, step_architecture
from vllm_prm.errors import in_words
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import PRMFamily, Question
from vllm_prm.families.rope import rope_overrides
from vllm_prm.families.writing import Writer, chat_turns, special_literals


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A family that has nothing to choose."""


class CheckpointFamily(PRMFamily):
    """A family with options, given by keyword, as JSON in config.json (`"prm": {"family": name, **options}`), or by
    `--family-options`."""

    Options: ClassVar[type] = NoOptions
    """A keyword-only frozen dataclass. Its defaults are the published recipe."""
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Repository name -> options, of checkpoints on the hub whose config.json does not tell their family."""

    served_as: ClassVar[str] = STEP_REWARD
    """Ending of the vLLM architectures that run it."""
    unseen: ClassVar[Sequence[str]] = ()
    """Options that the training chose and no checkpoint shows: their defaults are guesses unless config.json declares
    the family or its name is a published one."""

    def __init__(
        self, tokenizer: Any, *, architecture: str | None = None, path: str = "the checkpoint", **options: Any
    ) -> None:
        """`architecture`: what vLLM serves it as, by default what config.json shows. `path` appears in messages.
        `ValueError` for a wrong option."""
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.path = path
        self.config: Mapping[str, Any] | None = None
        self.options = self._checked(options)
        self._literals = special_literals(tokenizer, self.tags())

    def tags(self) -> Sequence[str]:
        """Texts of the tokens that mark a step, so that a step cannot spell them."""
        return ()

    def _checked(self, options: Mapping[str, Any]) -> Any:
        allowed = {field.name for field in fields(self.Options)}
        if unknown := sorted(set(options) - allowed):
            raise ValueError(
                f"{self.path}: family {self.name} has no option {', '.join(unknown)}; allowed: {sorted(allowed)}"
            )
        try:
            # JSON in, so lists become tuples; a number where a text belongs is refused.
            return TypeAdapter(self.Options).validate_python(dict(options))
        except ValidationError as error:
            raise ValueError(f"{self.path}: options of family {self.name}: {in_words(error)}") from None

    @classmethod
    def from_checkpoint(
        cls, path: str, tokenizer: Any = None, options: Mapping[str, Any] | None = None
    ) -> "CheckpointFamily":
        """Options, later ones first to win: the recipe's defaults, what the repository's name or its weights tell, the
        `prm` key of config.json, `options`."""
        checkpoint = Checkpoint(path, tokenizer)
        declares = checkpoint.declared_family == cls.name
        given = cls.said_options(checkpoint, options)
        family = cls(
            checkpoint.tokenizer,
            path=path,
            **{**cls.seen_options(checkpoint, given), **given},
        )
        family.config = checkpoint.config
        if not declares and not any(name.lower() in checkpoint.names for name in cls.published):
            family.guesses = tuple(
                f"{name} {getattr(family.options, name)!r} is a guess: the checkpoint does not say what it was trained "
                f"with; --family-options '{{\"{name}\": ...}}' does"
                for name in cls.unseen
                if name not in given
            )
        return family

    @classmethod
    def said_options(cls, checkpoint: Checkpoint, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """`options`, and those of config.json that they leave out."""
        declares = checkpoint.declared_family == cls.name
        return {**(checkpoint.declared_options if declares else {}), **(options or {})}

    @classmethod
    def seen_options(cls, checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options that the checkpoint itself shows; those in `given` need not be looked for."""
        for name, options in cls.published.items():
            if name.lower() in checkpoint.names:
                return dict(options)
        return {}

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        """A published checkpoint is known by its name, unless what lies in it is another's of that name."""
        for name in cls.published:
            if name.lower() in checkpoint.names and not cls.is_anothers(checkpoint):
                return Evidence(f"it is called {name}, like the published checkpoint", decisive=True)
        return None

    @classmethod
    def is_anothers(cls, checkpoint: Checkpoint) -> bool:
        """Whether architecture or weights show another family's checkpoint, whatever it is called."""
        return False

    def writer(self) -> Writer:
        """A new writer for this family's tokenizer."""
        return Writer(self.tokenizer, self._literals)

    def begun(self, question: Question, *, bos: Sequence[int], suffix: str, chat: bool) -> Writer:
        """A writer with `bos`, the question and the text `suffix` written, see `write_question`."""
        writer = self.writer()
        writer.ids(bos)
        self.write_question(writer, question, chat=chat)
        writer.recipe(suffix)
        return writer

    def write_question(self, writer: Writer, question: Question, *, chat: bool) -> None:
        """A question's text as it is, or, with `chat` or as messages, the chat template up to where the assistant
        answers. A text's own special tokens count, as in the published scripts: it may be a prompt that already went
        through a template. Those in messages do not."""
        if isinstance(question, str) and not chat:
            writer.recipe(question)
            return
        messages = as_messages(question)
        turns, after = chat_turns(self.tokenizer, [m["role"] for m in messages], self.path, add_generation_prompt=True)
        for turn, message in zip(turns, messages, strict=True):
            writer.turn(turn, message["content"])
        writer.recipe(after)

    def _head(self) -> dict[str, Any]:
        """The head as JSON, without the parts that it does not have."""
        optional = {field.name for field in fields(self.head) if field.default is not MISSING}
        return {name: part for name, part in as_json(self.head).items() if part or name not in optional}

    def hf_overrides(self) -> dict[str, Any]:
        """The step-reward architecture; under `prm` the family, its options, and what the pooler reads; see
        `rope_overrides`. `ValueError` if vLLM has none for the checkpoint; what it has is asked here, because that
        imports vLLM, and a trainer need not."""
        if self.architecture is None and self.config is None:
            raise ValueError("this family was built without a checkpoint, so there is no architecture to serve")
        architecture = self.architecture or step_architecture(self.path, self.config, self.served_as)
        reads = {"reward_token_ids": list(self.reward_token_ids)} if self.head is None else {"head": self._head()}
        return {
            **rope_overrides(self.config or {}),
            "architectures": [architecture],
            "prm": {"family": self.name, "options": as_json(self.options), **reads},
        }


def as_json(options: Any) -> dict[str, Any]:
    """A dataclass of plain values as JSON would hold it: tuples as lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def as_messages(question: Question) -> list[dict[str, str]]:
    """A question as chat messages."""
    return [{"role": "user", "content": question}] if isinstance(question, str) else list(question)


def only_question(question: Question) -> str:
    """The text of a question; of messages, what the user asks. `ValueError` unless they hold one question and no
    answer, for prompts that have room for no more."""
    if isinstance(question, str):
        return question
    asked = [message["content"] for message in question if message["role"] == "user"]
    if len(asked) != 1 or any(message["role"] == "assistant" for message in question):
        raise ValueError("this PRM is asked about one question; messages must hold exactly one, of the user")
    return asked[0]


def require_list(steps: Sequence[str]) -> None:
    """`ValueError` for one text where a list of texts belongs: it would be scored letter by letter."""
    if isinstance(steps, str):
        raise ValueError("steps must be a list of texts, got one text; split it into steps first")


def bos_ids(tokenizer: Any, wanted: bool | None, path: str) -> list[int]:
    """The token that begins a text, if `wanted` (None: if the tokenizer has one), as a list to write.

    `ValueError` if it is wanted and there is none.
    """
    if wanted and tokenizer.bos_token_id is None:
        raise ValueError(f"the tokenizer of {path} has no token that begins a text (bos_token)")
    return [tokenizer.bos_token_id] if wanted is not False and tokenizer.bos_token_id is not None else []
