"""What a machine means."""

import socket

import pytest

from openrlhf_prm.diagnosis import device_facts, machine, machine_facts

ALL = ("serve", "train-prm", "train-ppo")
TRAINING = ("train-prm", "train-ppo")
H100 = ("NVIDIA H100", 80)
NODE = {
    **{"torch": "2.13.0", "cuda": "13.0", "gpus": [H100] * 8, "nccl": "2.29.7", "nccl_fault": ""},
    **{"nvcc": "13.0", "g++": True, "flash_attn_fault": ""},
}


def faults(**changes):
    """Check -> what it blocks, of what is no longer all right on a machine with eight GPUs."""
    return {f.check: f.blocks for f in machine.of_device({**NODE, **changes}, "") if f.verdict != "ok"}


def test_a_machine_with_gpus():
    assert faults() == {}
    found = {finding.check: finding.found for finding in machine.of_device(NODE, "")}
    assert found["GPUs"] == "8 x NVIDIA H100, 80 GiB"
    assert found["NCCL"] == "2.29.7, an all-reduce over 8 GPUs is right"
    mixed = machine.of_device({**NODE, "gpus": [H100, ("NVIDIA L4", 24), H100]}, "")
    assert "2 x NVIDIA H100, 80 GiB; 1 x NVIDIA L4, 24 GiB" in [finding.found for finding in mixed]


def test_this_machine(monkeypatch):
    facts = device_facts.collect()
    findings = machine.of_device(facts, "")
    assert findings[0].check == "PyTorch" and facts["torch"] in findings[0].found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nccl_fault": "unhandled system error"}, {"NCCL": TRAINING}),
        ({"nvcc": None}, {"nvcc": TRAINING}),
        ({"nvcc": "13.5"}, {"nvcc": TRAINING}),
        ({"nvcc": "12.8"}, {"nvcc": TRAINING}),
        ({"nvcc": "12.8", "cuda": "12.6"}, {}),  # DeepSpeed's own table allows it up to CUDA 12
        ({"g++": False}, {"g++": ALL}),
        # A login node: its cluster may have what it lacks.
        ({"gpus": [], "nvcc": None, "g++": False}, {"GPUs": ("serve", "train-prm"), "nvcc": (), "g++": ()}),
        ({"cuda": None, "gpus": [], "nvcc": None}, {}),
    ],
)
def test_what_is_missing_blocks_who_needs_it(monkeypatch, changes, expected):
    monkeypatch.delenv("DS_SKIP_CUDA_CHECK", raising=False)
    assert faults(**changes) == expected


def test_another_cuda_can_be_allowed(monkeypatch):
    monkeypatch.setenv("DS_SKIP_CUDA_CHECK", "1")
    assert faults(nvcc="13.5") == {}


def test_a_pytorch_that_does_not_start_blocks_all():
    (finding,) = machine.of_device(None, "OSError: libcudart.so.13")
    assert finding.blocks == ALL and finding.found == "OSError: libcudart.so.13"


def test_a_path_that_is_not_there_blocks_all(tmp_path):
    there, nowhere = str(tmp_path), str(tmp_path / "nowhere")
    missing = machine_facts.collect([there, nowhere], [])["missing"]
    (finding,) = machine.of_paths(missing, [there, nowhere])
    assert finding.found == f"{nowhere} is not here" and finding.blocks == ALL
    assert [finding.verdict for finding in machine.of_paths([], [there])] == ["ok"]


def test_a_taken_port_is_a_warning_that_names_its_flag(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine, "PORTS", {port: "vllm-prm serve --port"})
        (finding,) = machine.of_ports()
        assert (finding.check, finding.verdict) == (f"port {port}", "warning")
        assert finding.remedy == "vllm-prm serve --port takes another one"


def test_folders_that_are_full_are_warnings():
    facts = machine_facts.collect([], [])["folders"]
    assert set(facts) == set(machine.SCANT_GIB)
    assert all(0 <= gib["free"] <= gib["all"] for gib in facts.values())
    roomy = {name: {"free": 100.0, "all": 200.0} for name in machine.SCANT_GIB}
    assert {finding.verdict for finding in machine.of_folders(roomy)} == {"ok"}
    for name in machine.SCANT_GIB:
        scant = machine.of_folders({name: {"free": 0.06, "all": 0.06}})
        assert [finding.verdict for finding in scant] == ["warning"]
    (full,) = machine.of_folders({"Ray's files": {"free": 40.0, "all": 1000.0}}, "node2: ")
    assert full.check == "node2: Ray's files" and "95% full" in full.remedy


def test_a_folder_that_will_be_made_is_measured_where_it_will_be(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "there"))
    assert machine_facts.folders()["model cache"] == tmp_path
