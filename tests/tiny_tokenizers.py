"""Tokenizers of the published PRMs' kinds, small enough to be made on the spot: the same pre-tokenization, special
tokens and chat templates, a few merges that show where published vocabularies merge.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

# Byte-level BPE writes a space as Ġ and a newline as Ċ. As in the vocabularies of Llama 3 and Qwen, newlines merge with
# each other and with the full stop or bracket before them, and " \n\n\n\n" is one token.
BYTE_LEVEL_MERGES = [
    ("Ċ", "Ċ"),
    ("ĊĊ", "ĊĊ"),
    (".", "ĊĊ"),
    (".", "Ċ"),
    (")", "ĊĊ"),
    ("Ġ", "ĊĊ"),
    ("Ġ", "ĊĊĊĊ"),
    ("Ġ", "Ċ"),
    ("Ġ", "t"),
    ("t", "h"),
    ("Ġ", "="),
    ("Ġ", "+"),
    ("Ġ", "-"),
]
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}"
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level_vocabulary() -> dict[str, int]:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in BYTE_LEVEL_MERGES)]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def with_special(tokenizer: PreTrainedTokenizerFast, *texts: str) -> PreTrainedTokenizerFast:
    """`tokenizer` with special tokens that a PRM's training added."""
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in texts], special_tokens=True)
    return tokenizer


def qwen_tokenizer(bos: bool = False) -> Qwen2Tokenizer:
    """Qwen2.5-Math-PRM's kind: ChatML, `<extra_0>`. No BOS, or Skywork's, which is `<|endoftext|>`."""
    tokenizer = Qwen2Tokenizer(vocab=_byte_level_vocabulary(), merges=BYTE_LEVEL_MERGES)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    with_special(tokenizer, *special)
    tokenizer.chat_template = CHATML
    tokenizer.eos_token = "<|im_end|>"
    if bos:
        tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


def llama_3_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's kind: BOS added by `encode`, headers, contents stripped by the template."""
    tokenizer = Tokenizer(models.BPE(_byte_level_vocabulary(), BYTE_LEVEL_MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    bos = special[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="<|eot_id|>")
    fast.chat_template = LLAMA_3
    return fast


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Mistral's kind: SentencePiece BPE, where a space is ▁ and one stands before every text."""
    characters = [chr(code) for code in range(0x21, 0x7F)] + ["▁", "\n", "к", "и"]
    merges = [("к", "и"), ("▁", "ки"), ("▁", "+"), ("▁", "-"), ("▁", "▁"), ("t", "h")]
    tokens = ["<unk>", "<s>", "</s>", *characters, *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(
        models.BPE({token: index for index, token in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = [AddedToken(text, special=True, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
