"""The figures that a run logs, and the names under which the pages list them."""

import re
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from types import SimpleNamespace

from documents import ROOT, table_rows

GROUPS = "online_prm|process|progress|self_correction|vine"
NAME = rf"(?:{GROUPS})/[a-z][a-z0-9_*]*"


def in_source() -> set[str]:
    """What our code names, with a * for what it fills in."""
    text = "\n".join(path.read_text() for path in (ROOT / "openrlhf_prm").rglob("*.py"))
    return {name for name in re.findall(rf'"({NAME})"', re.sub(r"\{[^}\"]*\}", "*", text))}


def on_pages() -> set[str]:
    rows = (row for page in (ROOT / "docs").glob("*.md") for row in table_rows(page.read_text()))
    return {name for row in rows for name in re.findall(rf"`({NAME})`", row)}


def missing(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Of the names, those that none of the others is."""
    others = list(others)
    return sorted(name for name in names if not any(fnmatch(name, one) or fnmatch(one, name) for one in others))


def test_every_figure_has_its_row_and_every_row_its_figure():
    assert len(in_source()) > 30
    assert missing(in_source(), on_pages()) == []
    assert missing(on_pages(), in_source()) == []


def test_a_figure_without_a_row_is_missed():
    assert missing(["process/unheard_of", "self_correction/edits_*"], on_pages()) == ["process/unheard_of"]


def test_wandb_has_the_names_of_tensorboard(tmp_path, monkeypatch):
    """The host gives both the same figures."""
    from openrlhf.utils.logging_utils import TensorboardLogger, WandbLogger

    from openrlhf_prm.report.run_folder import read_run

    sent: list[dict] = []
    wandb = SimpleNamespace(
        api=SimpleNamespace(api_key="set"),
        init=lambda **_: None,
        define_metric=lambda *_, **__: None,
        Table=lambda **_: None,
        log=sent.append,
        finish=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    names = dict.fromkeys(("org", "project", "group", "run_name", "key"), "run")
    args = SimpleNamespace(logger=SimpleNamespace(tensorboard_dir=str(tmp_path), wandb=SimpleNamespace(**names)))
    figures = {"process/step_score": 0.5, "vllm_kl": 0.25, "vine/k": None}
    for kind in (WandbLogger, TensorboardLogger):
        logger = kind(args)
        logger.log_train(3, figures)
        logger.close()
    (logged,) = sent
    assert logged.pop("train/global_step") == 3
    assert logged == {"train/process/step_score": 0.5, "train/vllm_kl": 0.25}
    in_folder = read_run(tmp_path).scalars["after"]
    assert {name: points[-1][1] for name, points in in_folder.items()} == logged
