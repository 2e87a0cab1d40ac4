"""Length penalties: lengths and outcomes of a batch -> what is added to each response's outcome reward. Counted in
tokens.

A penalty is a frozen dataclass (its fields are its options, `--length_penalty.<field>`) called with lengths (B,),
correct (B,) and the group size G; the responses of a question stand together. To add one: a file with the dataclass,
a line here.
"""

from openrlhf_prm.length_penalties.kimi import Kimi
from openrlhf_prm.length_penalties.overlong import Overlong

LENGTH_PENALTIES = {"kimi": Kimi, "overlong": Overlong}
