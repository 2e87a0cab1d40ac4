"""A generative PRM over a tokenizer of characters."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vllm_prm.families.critics import Critique
from vllm_prm.families.generative import GenerativeFamily

CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


STEPS = ["2 + 3 = 5.", "So 10."]


RIGHT, WRONG = "\\boxed{correct}", "\\boxed{incorrect}"


def make_tokenizer(chat_template=CHATML):
    ids = {token: index for index, token in enumerate(["<unk>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    fast.chat_template = chat_template
    return fast


def family(style="thinkprm", **options):
    return GenerativeFamily(make_tokenizer(), **{"style": style, "samples": 1, **options})


def text_of(made, token_ids):
    return "".join(made.tokenizer.convert_ids_to_tokens(token_ids))


def said(text, finished=True, log_probs=(), token_ids=()):
    return Critique(text, list(token_ids) or [1] * len(text), finished, list(log_probs))
