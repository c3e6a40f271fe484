# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
#
#   PYTHON       the Python that makes the virtual environment (3.11 or later)
#   TORCH_INDEX  package index to take torch and torchvision from, e.g. PyTorch's index of small CPU-only builds
#   VENV         the virtual environment's folder
PYTHON ?= python3
VENV ?= .venv

# Any other variable given to make is an option of the runner, which reads it from make itself (command_line.from_make):
# PRESET=pocket SEEDS="0 1" EPOCHS=3 LR=1e-3 ..., and DRY_RUN=yes or no. PRESET SEED SEEDS DEVICE count in the
# environment too.
RUNNER = @$(VENV)/bin/python runner.py --from-make
# Of `make ablation-step 3 GPUS=8`: as many processes, which share the run.
TORCHRUN = $(if $(GPUS),$(if $(filter-out 1,$(words $(GPUS)))$(filter-out $(shell seq 1024),$(GPUS)),$(error \
  GPUS is $(GPUS): give how many processes are to share the run, one for each GPU))-m torch.distributed.run \
  --standalone --nproc-per-node=$(GPUS))
# Not exported one by one as well: make would take a $ in their values for variables of its own.
$(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$(eval unexport $v)))

TARGETS = help demo ablation-step all-ablations ablation status report pack unpack merge steps show check predict \
  export test test-slurm lint clean
# `make ablation-step 3`: the words after these targets are words of the command, not targets.
ifneq (,$(filter ablation-step show check pack unpack merge,$(firstword $(MAKECMDGOALS))))
export WORDS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
$(if $(filter $(TARGETS),$(WORDS)),$(error $(filter $(TARGETS),$(WORDS)) is a target of this Makefile: \
  python runner.py $(firstword $(MAKECMDGOALS)) takes it as a name))
.PHONY: $(WORDS)
$(foreach word,$(WORDS),$(eval $(word): ; @:))
endif

.DEFAULT_GOAL := help
.PHONY: $(TARGETS)

help:  ## this list
	@echo "make TARGET [PRESET=food101|fashion-mnist|pocket] [DEVICE=auto|cpu|cuda] [any option of runner.py, as NAME=value]"
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-16s %s\n", $$1, $$2 }'

demo: $(VENV)/run.stamp  ## train all 18 networks on the embedded images, minutes on a CPU, then write the report
	$(RUNNER) all --preset pocket

ablation-step: $(VENV)/run.stamp  ## train one step: make ablation-step 3, or N=3, or a name; GPUS=8: on so many at once
	@$(VENV)/bin/python $(TORCHRUN) runner.py --from-make train

all-ablations: $(VENV)/run.stamp  ## train every step (SEEDS="0 1 2"), skip what is finished, then write the report
	$(RUNNER) all

ablation: $(VENV)/run.stamp  ## any roadmap and design: make ablation ROADMAP=recipe DESIGN=leave-one-out PRESET=pocket
	$(RUNNER) all

status: $(VENV)/run.stamp  ## how far a study is: queued, running, done, failed and why (WATCH=yes, FORMAT=json)
	$(RUNNER) status

report: $(VENV)/run.stamp  ## write the report of whatever runs exist
	$(RUNNER) report

pack: $(VENV)/run.stamp  ## a study in one small file for its report, no weights: make pack pocket
	$(RUNNER) pack

unpack: $(VENV)/run.stamp  ## a study's folder of a pack, to go on with it here: make unpack both.pack
	$(RUNNER) unpack

merge: $(VENV)/run.stamp  ## parts of a study from several machines in one: make merge A.pack B.pack OUT=both.pack
	$(RUNNER) merge

steps: $(VENV)/run.stamp  ## the roadmap with parameters and FLOPs beside the paper's
	$(RUNNER) steps

show: $(VENV)/run.stamp  ## one step's network beside the step before: make show 5, or N=5
	$(RUNNER) show

check: $(VENV)/run.stamp  ## what is wrong with a roadmap of your own: make check my.toml
	$(RUNNER) check

predict: $(VENV)/run.stamp  ## what a network sees: make predict IMAGE=photo.jpg [RUN="runs/STUDY/STEP/seed-0 ..."]
	$(RUNNER) predict

export: $(VENV)/run.stamp  ## a network for use elsewhere: make export OUT=folder FORMAT=safetensors [RUN=...]
	$(RUNNER) export

test: $(VENV)/dev.stamp  ## all tests, on all cores
	@# Processes by the hundred import the same modules: what they compile is kept, whatever the environment says.
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest -n auto --dist worksteal

test-slurm: $(VENV)/dev.stamp  ## a study on a Slurm that is started for it (Debian: slurm-wlm, munge), minutes
	$(VENV)/bin/python -W ignore -m tests.torture.slurm

lint: $(VENV)/dev.stamp  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:  ## remove the environment and caches; runs, reports and images stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV): PyTorch and the other packages of constraints.txt, about" \
	  "$(if $(TORCH_INDEX),what $(TORCH_INDEX) has,5 GB with CUDA's libraries (TORCH_INDEX=URL of CPU builds: a tenth))"
	$(if $(TORCH_INDEX),$(VENV)/bin/python -m pip install --index-url $(TORCH_INDEX) -c constraints.txt torch torchvision)
	$(VENV)/bin/python -m pip install -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
