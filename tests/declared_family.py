"""A family that shows which tokenizer it was given."""

from vllm_prm.families.placeholder import PlaceholderFamily


class Declared(PlaceholderFamily):
    """A family whose overrides show which tokenizer it was given."""

    @classmethod
    def from_checkpoint(cls, path, tokenizer=None, options=None):
        family = cls.__new__(cls)
        family.tokenizer = tokenizer
        return family

    def hf_overrides(self):
        return {"architectures": ["LlamaForStepReward"], "prm": {"family": "declared"}}
