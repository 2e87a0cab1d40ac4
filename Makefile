PYTHON ?= python3.11
SEED ?= 0
JOBS ?= 2
MINUTES ?= 20
RUN := OMP_NUM_THREADS=1 .venv/bin/python

.PHONY: help setup lint unit stack test smoke chaos compat quickstart rejection-sampling calculator-agent clean

help:
	@echo "make setup        build .venv for CPU, once (2 to 4 minutes)"
	@echo "make quickstart   train a small model with step rewards on CPU (15 minutes, 8 GiB); COMPARE=1: the best stock"
	@echo "                  method beside it; SEED=0"
	@echo "make rejection-sampling   fine-tune a small model on its own right answers on CPU; RANKED=1: best by a PRM; SEED=0"
	@echo "make calculator-agent     an agent with a calculator: a reward for every turn against one for the answer, on CPU; SEED=0"
	@echo "make test         set-up, lint, unit tests, tests on the real Ray + vLLM + DeepSpeed (16 minutes on 2 quiet cores);"
	@echo "                  JOBS=2: how many stack tests at a time, some 8 GiB each"
	@echo "make lint | unit | stack    one part of it"
	@echo "make smoke        every script of examples/cluster with toy models, and every dry run; step rewards in other"
	@echo "                  trainers; a real language model through the conversion (9 minutes); JOBS=2"
	@echo "make chaos        PPO under random faults for MINUTES=20, against undisturbed runs; a table at the end"
	@echo "make compat VLLM=0.32.0     the tests of vllm_prm on another vLLM, in an environment of its own"
	@echo "make clean        remove .venv and what runs and tests left"

setup:
	@PYTHON="$(PYTHON)" scripts/setup.sh

lint: setup
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .

unit: setup
	$(RUN) -m pytest tests/unit -n $(JOBS)

stack: setup
	$(RUN) -m pytest tests/stack -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 25

test: setup
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory stack

smoke: setup
	$(RUN) -m pytest tests/smoke -n $(JOBS) --dist loadgroup

chaos: setup
	PYTHONPATH=.:tests:tests/stack $(RUN) tests/stack/faults/chaos.py --minutes $(MINUTES)

compat:
	@PYTHON="$(PYTHON)" scripts/compat.sh $(VLLM)

quickstart: setup
	.venv/bin/python -m examples.quickstart.run --seed $(SEED) $(if $(COMPARE),--compare)

# RANKED, because make hands its variables on and torch.distributed reads RANK.
rejection-sampling: setup
	.venv/bin/python -m examples.rejection_sampling.run --seed $(SEED) $(if $(RANKED),--rank)

calculator-agent: setup
	.venv/bin/python -m examples.calculator_agent.run --seed $(SEED)

clean:
	rm -rf .venv .venv-compat-* runs ckpt build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
