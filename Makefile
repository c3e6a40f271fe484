# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
#
#   PYTHON       the Python that makes the virtual environment (3.11 or later)
#   TORCH_INDEX  package index to take torch and torchvision from, e.g. PyTorch's index of small CPU-only builds
#   VENV         the virtual environment's folder
PYTHON ?= python3
VENV ?= .venv
RUNNER = $(VENV)/bin/python runner.py

# Any other variable given to make becomes an option of runner.py: PRESET=pocket SEEDS="0 1" EPOCHS=3 LR=1e-3 ...
# An option without a value is given as NAME=yes: DRY_RUN=yes becomes --dry-run, and DRY_RUN=no becomes --no-dry-run.
OURS = PYTHON VENV TORCH_INDEX N IMAGE RUN
# PRESET, SEED, SEEDS and DEVICE count in the environment too.
ORIGINS = command $(if $(filter PRESET SEED SEEDS DEVICE,$1),environment)
GIVEN = $(foreach v,$(filter-out $(OURS),$(.VARIABLES)),$(if $(filter $(call ORIGINS,$v),$(firstword $(origin $v))),$v))
FLAGS = DRY_RUN MIXED_CODE SKIP_UNREADABLE TRIAL DETERMINISTIC JSON FOLD_LAYER_SCALE DECAY_ALL CLASSIC.DECAY_ALL
YES = 1 yes true on
NO = 0 no false off
name = $(shell echo '$1' | tr A-Z_ a-z-)
# classic.decay-all becomes classic.no-decay-all
not = $(if $(findstring .,$1),$(subst .,.no-,$1),no-$1)
flag = $(if $(filter $(YES),$($1)),--$(call name,$1),$(if $(filter $(NO),$($1)),--$(call not,$(call name,$1)),\
	$(error $1 is $($1): give $1=yes or $1=no)))
# Values reach the shell in quotes; those of LISTS are several words.
LISTS = SEEDS STEPS OVERWRITE IMAGES BETAS CROP_SCALE CLASSIC.BETAS CLASSIC.CROP_SCALE
quoted = '$(subst ','\'',$1)'
# As given: $(value X), because make would take a $ in $(X) for a variable of its own.
values = $(if $(filter $(LISTS),$1),$(foreach word,$(value $1),$(call quoted,$(word))),$(call quoted,$(value $1)))
# Paths, several of them; patterns such as photos/*.jpg are looked up.
paths = $(foreach word,$(value $1),$(foreach path,$(or $(wildcard $(word)),$(word)),$(call quoted,$(path))))
OPTIONS = $(foreach v,$(GIVEN),$(if $(filter $(FLAGS),$v),$(call flag,$v),--$(call name,$v) $(call values,$v)))
# Nor into the environment of the runner, for which make would look into them as well.
$(foreach v,$(GIVEN) $(filter IMAGE RUN,$(.VARIABLES)),$(eval unexport $v))

.DEFAULT_GOAL := help
.PHONY: help demo ablation-step all-ablations report steps show predict export test lint clean

help:  ## this list
	@echo "make TARGET [PRESET=food101|fashion-mnist|pocket] [DEVICE=auto|cpu|cuda] [any option of runner.py, as NAME=value]"
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-16s %s\n", $$1, $$2 }'

demo: $(VENV)/run.stamp  ## train all 18 networks on the embedded pictures, minutes on a CPU, then write the report
	$(RUNNER) all --preset pocket $(OPTIONS)

ablation-step: $(VENV)/run.stamp  ## train one step: make ablation-step 3, or N=3, or a name
	$(RUNNER) train $(STEP) $(OPTIONS)

all-ablations: $(VENV)/run.stamp  ## train every step (SEEDS="0 1 2"), skip what is finished, then write the report
	$(RUNNER) all $(OPTIONS)

report: $(VENV)/run.stamp  ## write the report of whatever runs exist
	$(RUNNER) report $(OPTIONS)

steps: $(VENV)/run.stamp  ## the roadmap with parameters and FLOPs beside the paper's
	$(RUNNER) steps $(OPTIONS)

# The run that was finished last, unless RUN names others.
NEWEST = $(patsubst %/result.json,%,$(firstword $(shell ls -t runs/*/*/seed-*/result.json 2>/dev/null)))
RUNS_ASKED = $(foreach run,$(or $(call paths,RUN),$(NEWEST)),--run $(run))

predict: $(VENV)/run.stamp  ## what a network sees: make predict IMAGE=photo.jpg [RUN="runs/STUDY/STEP/seed-0 ..."]
	$(RUNNER) predict $(call paths,IMAGE) $(RUNS_ASKED) $(OPTIONS)

export: $(VENV)/run.stamp  ## a network for use elsewhere: make export OUT=folder FORMAT=safetensors [RUN=...]
	$(RUNNER) export $(RUNS_ASKED) $(OPTIONS)

show: $(VENV)/run.stamp  ## one step's network beside the step before: make show 5, or N=5
	$(RUNNER) show $(STEP) $(OPTIONS)

# With two threads torch 2.15 crashes in the backward pass of some of the lattice's tiny networks (docs/decisions.md#tests-one-thread).
test: $(VENV)/dev.stamp  ## all tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest

lint: $(VENV)/dev.stamp  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:  ## remove the environment and caches; runs, reports and pictures stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make ablation-step 3`: the words after it are the step, not targets.
ifneq (,$(filter ablation-step show,$(firstword $(MAKECMDGOALS))))
WORDS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
STEP := $(strip $(WORDS) $(N))
ifneq (,$(word 2,$(STEP)))
$(error one step at a time, and not both as a word and as N: got $(STEP))
endif
ifeq (,$(STEP))
$(error which step? make $(firstword $(MAKECMDGOALS)) 3, with N=3, or by name: depthwise)
endif
$(foreach word,$(WORDS),$(eval $(word): ; @:))
endif

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(if $(TORCH_INDEX),$(VENV)/bin/python -m pip install -q --index-url $(TORCH_INDEX) -c constraints.txt torch torchvision)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
