"""What the pages say is there: commands with their flags, links, files, and every entry of the registries."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import cluster_scripts
import pytest
from documents import (
    ROOT,
    anchors,
    commands,
    expanded,
    flags_in_prose,
    links,
    named_paths,
    pages,
    python_blocks,
    shell_commands,
    table_rows,
)

from examples.cluster.tiny import smaller
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.annotation import ANNOTATORS
from openrlhf_prm.answers.checkers import ANSWER_CHECKERS
from openrlhf_prm.cli.main import COMMANDS
from openrlhf_prm.evaluation.benchmarks import BENCHMARKS
from openrlhf_prm.generation.chains import SCHEMES
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.prm_training.heads import PRM_HEADS
from openrlhf_prm.rewards import REWARD_SHAPINGS
from vllm_prm.families import PRM_FAMILIES
from vllm_prm.splitters import STEP_SPLITTERS

REGISTRIES = {
    "advantage estimator": ADVANTAGE_ESTIMATORS,
    "annotator": ANNOTATORS,
    "answer checker": ANSWER_CHECKERS,
    "benchmark": BENCHMARKS,
    "chain scheme": SCHEMES,
    "length penalty": LENGTH_PENALTIES,
    "PRM family": PRM_FAMILIES,
    "PRM head": PRM_HEADS,
    "reward shaping": REWARD_SHAPINGS,
    "step splitter": STEP_SPLITTERS,
}
PAGES = [str(path.relative_to(ROOT)) for path in pages()]
CURRENT = [page for page in PAGES if not page.startswith("benchmarks/history") and page != "CHANGELOG.md"]
"""Pages about what is there now."""


def undocumented(keys: Iterable[str]) -> list[str]:
    """Keys that stand in backquotes in no row of a table of README.md or docs/."""
    rows = "\n".join(
        row
        for page in CURRENT
        if page == "README.md" or page.startswith("docs/")
        for row in table_rows((ROOT / page).read_text())
    )
    return [key for key in keys if f"`{key}`" not in rows]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_entry_of_a_registry_has_its_row(kind):
    assert undocumented(REGISTRIES[kind]) == []


def test_every_command_stands_on_a_page():
    text = "\n".join((ROOT / page).read_text() for page in CURRENT)
    assert [name for name in COMMANDS if f"openrlhf-prm {name}" not in text and f"`{name}`" not in text] == []


def test_an_entry_without_a_row_is_missed():
    assert undocumented([*REWARD_SHAPINGS, "unheard_of"]) == ["unheard_of"]


TRAIN_PRM = "openrlhf_prm.cli.train_prm --model.model_name_or_path a --data.dataset b --ckpt.output_dir c"


def written_out(word: str, text: str, folder: Path) -> str:
    """`FILE.py:Name` with a path to that file, where the page shows what stands in it; any other word as it is."""
    file, _, name = word.partition(":")
    for code in python_blocks(text):
        if re.fullmatch(r"\w+\.py", file) and re.search(rf"^(class|def) {name}\b", code, re.MULTILINE):
            (folder / file).write_text(code)
            return f"{folder / file}:{name}"
    return word


WRONG = {
    "python -m openrlhf_prm.cli.report --run a --ouptut b": "--ouptut",
    "openrlhf-prm anotate": "anotate",
    "openrlhf-prm view-labels --input a --output b --more": "--more",
    f"deepspeed --hostfile hosts --module {TRAIN_PRM} --prm.haed qwen_prm": "--prm.haed",
    "ray job submit -- python -m openrlhf_prm.cli.train_ppo_ray --process_reward.shaping mni_form": "mni_form",
    "python -m openrlhf_prm.cli.train_ppo_ray ... --algo.advantage.estimator rlo": "rlo",
    "vllm-prm serve prm --max-num-sqes 3": "--max-num-sqes",
    "vllm serve prm --prot 8000": "--prot",
    "python -m benchmarks.overhead --jbos 2": "--jbos",
    "COMPARE=1 make quikstart": "quikstart",
    "pip install 'openrlhf-prm[sevre]'": "sevre",
    "env A=1 bash examples/cluster/no_such.sh": "no_such.sh",
    "vlm-prm serve prm": "vlm-prm",
}
"""A command with a mistake -> what names it."""


NOT_TAKEN_OVER = "--load_in_4bit --use_liger_kernel --aux_loss_coef --dataset_probs --use_wandb".split()
"""Flags of an older trainer, which the page on PRM training says are not there."""


def defined_on(page: str, flag: str) -> bool:
    """Whether a class on the page itself gives the flag."""
    field = rf"^    {flag.rpartition('.')[2]}: "
    return any(re.search(field, code, re.MULTILINE) for code in python_blocks((ROOT / page).read_text()))


def commands_of(script: str) -> Iterator[tuple[str, list[str]]]:
    """The command of a script of examples/cluster, and what SMOKE=1 makes of it where it is ours."""
    words = cluster_scripts.printed(script)
    yield script, words
    if words[0] in ("openrlhf-prm", "torchrun", "vllm-prm"):
        yield f"SMOKE=1 {script}", smaller(words)


def test_every_command_and_flag_on_the_pages_and_in_the_scripts_is_there(tmp_path):
    """One process parses all of them: its imports take their time."""
    lines = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        lines += [(page, [written_out(word, text, tmp_path) for word in words]) for words in shell_commands(text)]
    lines += [line for name in cluster_scripts.SCRIPTS for line in commands_of(name)]
    wrong = [words for line in WRONG for words in commands(line)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "real_parsers.py")],
        input=json.dumps([words for _, words in lines] + wrong),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    verdicts, noticed = answer["verdicts"][: len(lines)], answer["verdicts"][len(lines) :]
    unnoticed = [line for line, said in zip(WRONG, noticed, strict=True) if WRONG[line] not in said]
    assert unnoticed == []
    faults = [f"{page}: {' '.join(words)}: {said}" for (page, words), said in zip(lines, verdicts, strict=True) if said]
    assert not faults, "\n".join(faults)

    named = [(page, flag) for page in CURRENT for flag in flags_in_prose((ROOT / page).read_text())]
    assert len(named) > 50
    known = [*answer["flags"], *cluster_scripts.MODES]
    unknown = {
        (page, flag)
        for page, flag in named
        if not any(fnmatch(other, flag) for other in known) and not defined_on(page, flag)
    }
    assert unknown == {("docs/training_prms.md", flag) for flag in NOT_TAKEN_OVER}


@pytest.mark.parametrize("page", PAGES)
def test_python_on_a_page_is_python(page):
    for code in python_blocks((ROOT / page).read_text()):
        compile(code, page, "exec")


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert broken_links(ROOT / page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, here\n## Twice\n## Twice\n[a](#a-title-here) [b](page.md#twice-1) [c](#twice-2) [d](no.md)\n"
    )
    assert broken_links(page) == ["#twice-2", "no.md"]


def missing_paths(text: str) -> list[str]:
    """Paths of the repository that are named on a page and are not there. Capitals stand for a name of the reader's."""
    paths = [path for path in sorted(named_paths(text)) if not re.search(r"\b[A-Z]{2,}\b", path.replace("README", ""))]
    return [path for path in paths if not all(any(ROOT.glob(pattern)) for pattern in expanded(path))]


@pytest.mark.parametrize("page", CURRENT)
def test_every_file_that_is_named_is_there(page):
    assert missing_paths((ROOT / page).read_text()) == []


def test_a_file_that_is_not_there_is_noticed():
    text = "`docs/nowhere.md`, `tests/unit`, `docs/*.md`, `benchmarks/results/NAME.json`, `vllm_prm/{scorer,score}.py`"
    assert missing_paths(text) == ["docs/nowhere.md", "vllm_prm/{scorer,score}.py"]
