"""`generate` from its flags to its last line, runs that are killed among them; its models answer from a script."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripted_roles import ScriptedModel, stumbling

from openrlhf_prm.cli import generate
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.generation.chains import generating
from openrlhf_prm.generation.chains.asking import Unreachable
from openrlhf_prm.generation.chains.progress import ChainProgress
from openrlhf_prm.generation.chains.roles import DEFAULT_FILE
from openrlhf_prm.generation.chains.work_file import WorkFile
from openrlhf_prm.tasks.arithmetic import questions

POLICY = Path(__file__).parents[4] / "benchmarks" / "policies" / "short"
ROLES = """
separator: "\\n"
roles:
  elaborator: {form: text, prompt: "STEP {question}|{plan}|{steps}|{tried}", stop: ["\\n"]}
  verifier: {form: text, prompt: "CHECK {question}|{steps}"}
"""
COUNT = 12
FILES = ("", ".sft.jsonl", ".shortest.jsonl", ".labels.jsonl", ".rejected.jsonl")


@pytest.fixture
def given(tmp_path):
    data, roles, output = tmp_path / "in.jsonl", tmp_path / "roles.yaml", tmp_path / "chains.jsonl"
    rows = [{"question": text, "label": label} for text, label in questions("train", COUNT, seed=0)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    roles.write_text(ROLES)
    flags = ["--actor.model_name_or_path", str(POLICY), "--data.input", str(data), "--data.output", str(output)]
    flags += ["--roles", str(roles)]
    ours = [*flags, "--chain.no_plan", "--critic.kind", "exact", "--critic.task", "arithmetic"]
    return SimpleNamespace(path=tmp_path, bare=flags, flags=ours, output=output, rows=rows)


def files_of(output):
    return {end: Path(f"{output}{end}").read_bytes() for end in FILES}


def summary(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def scripted(monkeypatch):
    """Models by script instead of engines; `say` is what they say, `starts` how often they were started."""
    state = SimpleNamespace(say=stumbling(0.4), starts=0)

    @contextlib.contextmanager
    def started(task):
        state.starts += 1
        yield {"policy": ScriptedModel(lambda *asked: state.say(*asked))}, None

    monkeypatch.setattr(generating, "started_models", started)
    return state


def complaint(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        generate.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--scheme", "shout"], "--scheme"),
        (["--roles", "absent.yaml"], "--roles: absent.yaml cannot be read"),
        (["--actor.model_name_or_path", "./absent"], "./absent"),
        (["--data.input", "absent.jsonl"], "--data.input: no such file"),
        (["--data.output", "."], "--data.output: . is a folder"),
        (["--chain.tries", "-1"], "--chain.tries must be at least 0"),
        (["--chain.max_calls", "0"], "--chain.max_calls must be at least 1"),
        (["--chain.no_plan", "--chain.max_parts", "3"], "--chain.max_parts needs --chain.plan"),
        (["--critic.kind", "exact"], "--critic.kind exact and --critic.task go together"),
        (["--critic.task", "arithmetic"], "--critic.kind exact and --critic.task go together"),
        (["--critic.tau", "0.3"], "--critic.tau needs --critic.kind prm"),
        (["--critic.kind", "none", "--critic.retries", "1"], "--critic.retries needs --critic.kind generated"),
        (["--critic.kind", "prm"], "--critic.kind prm needs --prm.model_name_or_path or --prm.url"),
        (["--prm.url", "http://a"], "--critic.kind generated reads no --prm.* flag"),
        (["--scheme", "plan_then_write", "--critic.kind", "prm"], "--scheme plan_then_write takes none"),
        (["--scheme", "tree_to_chain", "--critic.kind", "none"], "takes prm, rollouts, generated, exact"),
        (["--scheme", "tree_to_chain"], "--critic.kind prm needs --prm.model_name_or_path or --prm.url"),
        (["--scheme", "tree_to_chain", "--chain.tries", "3"], "--chain.tries is no option of --scheme tree_to_chain"),
        (["--critic.rollouts", "3"], "--critic.rollouts needs --critic.kind rollouts"),
        (["--length.min", "5", "--length.max", "4"], "--length.min 5 is more than .max 4"),
        (["--price.input", "-1"], "--price.input must be at least 0"),
        (["--rollout.concurrency", "0"], "--rollout.concurrency must be at least 1"),
        (["--rollout.patience_s", "nan"], "--rollout.patience_s must be"),
        (["--rollout.urls", "localhost"], "--rollout.urls must begin with http"),
        (["--rollout.urls", "http://a", "--vllm.num_engines", "2"], "--vllm.num_engines is of our own engines"),
        (["--answers.checker", "vibes"], "vibes"),
    ],
)
def test_a_bad_flag_is_named(given, capsys, flags, expected):
    assert expected in complaint(capsys, [*given.bare, *flags])


def test_a_question_that_is_none_of_the_task(given, capsys):
    (given.path / "in.jsonl").write_text('{"id": "odd", "question": "Why?", "label": "7"}\n')
    assert "--critic.task arithmetic: question odd: not an arithmetic question" in complaint(capsys, given.flags)


def test_a_checkpoint_of_a_role_that_is_not_there(given, capsys):
    (given.path / "roles.yaml").write_text(
        "models: {a: {checkpoint: ./absent}}\nroles: {critic: {model: a}, verifier: {model: a}}"
    )
    assert "--roles: checkpoint: there is no folder ./absent" in complaint(capsys, given.bare)


def test_models_that_no_role_uses_are_not_started(given):
    def engines(*flags, roles="{}"):
        (given.path / "roles.yaml").write_text(roles)
        args = nested(generate.build_parser().parse_args([*given.bare, *flags]))
        return list(generate.task_of(args).own_engines)

    assert engines() == ["vllm"] and engines("--rollout.urls", "http://a") == []
    judge = f"models: {{judge: {{checkpoint: {POLICY}}}}}\nroles: {{critic: {{model: judge}}}}"
    assert engines(roles=judge) == ["vllm", "roles.judge"]
    assert engines("--critic.kind", "none", roles=judge) == ["vllm"]


def test_a_text_without_an_answer_needs_no_label(given, capsys, scripted):
    (given.path / "in.jsonl").write_text('{"question": "Write about rivers"}\n')
    scripted.say = lambda role, prompt, seed: "1. Sources (200 words)" if "Outline" in prompt else "Springs rise."
    writing = [*given.bare, "--scheme", "plan_then_write"]
    assert "no key 'label'" in complaint(capsys, writing)
    assert generate.main([*writing, "--chain.no_check_answer"]) == 0
    assert summary(capsys)["kept"] == 1 and Path(f"{given.output}.labels.jsonl").read_bytes() == b""
    [row] = map(json.loads, given.output.read_text().splitlines())
    assert (row["response"], row["correct"], row["label"]) == ("Springs rise.", None, "")


def test_print_roles_needs_no_other_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        generate.main(["--print_roles"])
    assert ended.value.code == 0 and capsys.readouterr().out == DEFAULT_FILE.read_text()


def test_a_run_and_what_it_writes(given, capsys, scripted):
    assert generate.main([*given.flags, "--price.input", "2", "--price.output", "10"]) == 0
    counts = summary(capsys)
    assert counts["questions"] == COUNT == counts["kept"] + counts["rejected"] and 0 < counts["kept"] < COUNT
    assert counts["rejected"] == sum(counts["reasons"].values()) and set(counts["reasons"]) == {"no_try_left"}
    assert counts["cost"] == pytest.approx((2 * counts["prompt_tokens"] + 10 * counts["completion_tokens"]) / 1e6)
    assert counts["cost_per_kept"] == pytest.approx(counts["cost"] / counts["kept"], abs=1e-6)
    rows = {end: list(map(json.loads, lines.splitlines())) for end, lines in files_of(given.output).items()}
    kept, order = rows[""], [row["question"] for row in given.rows]
    assert [row["question"] for row in kept] == [text for text in order if text in {row["question"] for row in kept}]
    for row, sft, short in zip(kept, rows[".sft.jsonl"], rows[".shortest.jsonl"], strict=True):
        assert sft == {"input": row["question"], "output": row["response"] + "<eos>", "id": row["id"]}
        assert short["output"] == row["shortcut"] + "<eos>"
        assert sft["output"].endswith(f"Answer: {row['label']}<eos>") and row["tokens"] >= row["shortcut_tokens"] > 8
    assert all(row["reasons"] == ["no_try_left"] and row["events"] for row in rows[".rejected.jsonl"])
    assert {row["id"] for row in rows[".labels.jsonl"]} == {row["id"] for row in kept}
    assert len({row["settings"] for row in kept}) == 1 and "chains.jsonl.sft.jsonl" in counts["train_sft"]


def test_the_bar_says_what_a_kept_chain_costs(given):
    def line(*flags):
        task = generate.task_of(nested(generate.build_parser().parse_args([*given.flags, *flags])))
        progress = ChainProgress(task, 4)
        left_out = {"fault": "no_answer", "prompt_tokens": 1000, "completion_tokens": 200}
        for _ in range(4):
            progress.add(left_out)
        assert progress.line().endswith("chains/h, 0% kept, 4,000 + 800 tokens")
        progress.totals["kept"] += 2
        return progress.line().partition("chains/h, ")[2]

    assert line() == "50% kept, 4,000 + 800 tokens"
    assert line("--price.input", "2", "--price.output", "10") == "50% kept, 4,000 + 800 tokens, 0.008 per kept chain"


def test_other_limits_cost_no_generation(given, capsys, scripted):
    assert generate.main(given.flags) == 0
    before = summary(capsys)
    assert generate.main([*given.flags, "--length.max", "1"]) == 0
    after = summary(capsys)
    assert scripted.starts == 1 and after["kept"] == 0 and after["reasons"]["too_long"] == before["kept"]
    assert after["chains_per_hour"] is None and after["cost_per_kept"] is None
    assert given.output.read_bytes() == b""
    assert "--chain.tries was 2, is 3" in complaint(capsys, [*given.flags, "--chain.tries", "3"])
    other = ROLES.replace("CHECK", "RECHECK")
    (given.path / "roles.yaml").write_text(other)
    assert "--roles was" in complaint(capsys, given.flags)


def test_a_killed_run_goes_on_and_writes_the_same_bytes(given, capsys, scripted, monkeypatch):
    assert generate.main(given.flags) == 0
    expected = files_of(given.output)
    output = given.path / "again.jsonl"
    again = [*given.flags[:5], str(output), *given.flags[6:], "--rollout.concurrency", "3"]
    append = WorkFile.append_all

    def killed(work, finished):
        append(work, finished[:1])  # the others of the batch are lost
        raise KeyboardInterrupt

    for count in (1, 2, 3):
        with monkeypatch.context() as dying:
            dying.setattr(WorkFile, "append_all", killed)
            assert generate.main(again) == 130
        assert f"{count} finished questions are in" in capsys.readouterr().err and not output.exists()
    assert generate.main(again) == 0
    assert summary(capsys)["resumed_questions"] == 3
    assert files_of(output) == expected


def test_the_first_error_ends_the_run(given, scripted):
    def say(role, prompt, seed):
        raise RuntimeError("the engine is gone")

    scripted.say = say
    with pytest.raises(RuntimeError, match="the engine is gone"):
        generate.main(given.flags)


def test_a_server_that_is_not_there_is_one_line(given, capsys, monkeypatch):
    def generate_chains(task, work):
        raise Unreachable("http://a/v1 did not answer for 0 s: refused")

    monkeypatch.setattr(generate, "generate", generate_chains)
    assert "http://a/v1 did not answer" in complaint(capsys, [*given.bare, "--rollout.urls", "http://a/v1"])
