"""The benchmark of annotators, on few planted chains: it resumes, and its ratios are its figures'."""

import json

from benchmarks import annotation


def run(capsys, *flags: str) -> dict:
    assert annotation.main(["--parts", "planted", "--chains", "2", *flags]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_figures_are_kept_and_an_interrupted_run_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(annotation, "STEPS", (4,))
    output = tmp_path / "figures.json"
    first = run(capsys, "--output", str(output))
    place = first["tokens_per_error"]["planted/4 steps/recovery 0.0"]
    methods = {"brute", "sequential", "binary", "omega_prm", "adaptive_positive", "adaptive"}
    assert place.keys() == methods
    # 8 rollouts after each of 3 steps, each of the lines left, 10 characters a line, and "=wrong".
    assert place["brute"] == 8 * sum(10 * (4 - step) + 6 for step in (1, 2, 3))
    ratio = first["ratio"]["planted/4 steps/recovery 0.0"]
    assert ratio == round(place["sequential"] / place["adaptive"], 2)

    state = json.loads(output.read_text())
    removed = state["cells"].pop("planted/4 steps/recovery 0.0/binary")
    state["cells"]["planted/4 steps/recovery 0.0/brute"]["tokens_per_error"] = -1.0
    output.write_text(json.dumps(state))
    again = run(capsys, "--output", str(output))
    place = again["tokens_per_error"]["planted/4 steps/recovery 0.0"]
    assert place["brute"] == -1.0, "what is there is not made again"
    assert place["binary"] == removed["tokens_per_error"], "and what is not there is made, the same as before"
