"""The pages that a user reads, and the commands that stand in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELLS = ("bash", "sh", "shell", "console")
PROGRAMS = ("deepspeed", "make", "openrlhf-prm", "pip", "python", "ray", "vllm", "vllm-prm")
SEPARATORS = ("\n", ";", "&&", "||", "|", "&")


def pages() -> list[Path]:
    return sorted({path for place in PLACES for path in ROOT.glob(place)})


def without_fences(text: str) -> str:
    """The prose: fenced blocks are blank lines, so that line numbers stay."""
    return FENCE.sub(lambda block: "\n" * block.group().count("\n"), text)


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words of every command in the fenced shell blocks of a page, and in those of no language that begin with a
    command. Substitutions are left as they are.
    """
    for block in FENCE.finditer(text):
        if block[2] in SHELLS or (not block[2] and block[3].split(maxsplit=1)[0] in PROGRAMS):
            yield from commands(block[3])


def python_blocks(text: str) -> list[str]:
    return [block[3] for block in FENCE.finditer(text) if block[2] == "python"]


def commands(script: str) -> Iterator[list[str]]:
    """The words of every command of a script, without variables set before it and files it reads and writes.

    Knows quotes, `$(...)`, comments, continued lines, pipes and lists; no loops. What stands in square brackets in a
    line of usage is left out.
    """
    script = re.sub(r"\\\n\s*", " ", script)
    words: list[str] = []
    for word in _words(re.sub(r"(?<=\s)\[[-a-z][^\]\n]*\]", "", script)):
        if word not in SEPARATORS:
            words.append(word)
        elif words:
            yield _bare(words)
            words = []
    if words:
        yield _bare(words)


# A quoted text, $(...) with one pair of brackets inside at most, an escaped character, or any other one.
_PIECE = re.compile(
    r"""'[^']*'|"(?:\\.|[^"\\])*"|\$\((?:'[^']*'|"[^"]*"|\([^()]*\)|[^()])*\)|\\.|[^\s;|&]""", re.DOTALL
)
_SPACE = re.compile(r"[ \t]*(?:(?<![^\s])#[^\n]*)?")


def _words(script: str) -> Iterator[str]:
    at = 0
    while at < len(script):
        at = _SPACE.match(script, at).end()
        start = at
        while piece := _PIECE.match(script, at):
            at = piece.end()
        if at > start:
            yield script[start:at]
        elif at < len(script):
            length = 2 if script[at : at + 2] in SEPARATORS else 1
            yield script[at : at + length]
            at += length


def _bare(words: list[str]) -> list[str]:
    words = words[1:] if words[0] == "$" else words  # a prompt
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    kept, rest = [], iter(words)
    for word in rest:
        if re.fullmatch(r"\d?[<>]{1,2}(&\d)?", word):
            next(rest, None)
        elif not re.match(r"\d?[<>]", word):
            kept.append(unquoted(word))
    return kept


def unquoted(word: str) -> str:
    """The word as the command gets it, substitutions apart."""
    if "$(" in word:
        return word
    try:
        return "".join(shlex.split(word)) if word else word
    except ValueError:
        raise ValueError(f"a quote that does not end: {word}") from None


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("|")]


def links(text: str) -> list[str]:
    """Targets of the links and pictures on a page, outside its fenced blocks."""
    return re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", without_fences(text))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    seen: dict[str, int] = {}
    names = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for title in re.findall(r"^#{1,6} +(.*?) *#*$", without_fences(text), re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        names.add(f"{slug}-{seen[slug]}" if seen.get(slug) else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return names


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_fences(text))


def flags_in_prose(text: str) -> set[str]:
    """Flags in backquotes, each as a pattern: `--online_prm.*` is all of a group."""
    words = (word for code in code_spans(text) for word in re.findall(r"(?<![\w-])--[a-z][\w.{},*-]*", code))
    return {flag.rstrip(".,") for word in words for flag in expanded(word)}


def named_paths(text: str) -> set[str]:
    """What in backquotes looks like a file or a folder of the repository: its first part is a folder of the
    repository."""
    words = (word for code in code_spans(text) for word in re.findall(r"[\w.\-/*{},]+", code))
    return {word.rstrip(".,") for word in words if word.partition("/")[0] in FOLDERS and word.partition("/")[2]}


def expanded(word: str) -> list[str]:
    """`a.{b,c}` -> `a.b`, `a.c`, as a shell does it."""
    before, brace, rest = word.partition("{")
    inside, _, after = rest.partition("}")
    return [f"{before}{part}{end}" for part in inside.split(",") for end in expanded(after)] if brace else [word]


FOLDERS = ("benchmarks", "docs", "examples", "openrlhf_prm", "patches", "requirements", "scripts", "tests", "vllm_prm")
