# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
#
#   PYTHON       the Python that creates the virtual environment (3.11 or later)
#   TORCH_INDEX  package index for torch and torchvision, such as PyTorch's index of small CPU-only builds
#   VENV         the virtual environment's folder
PYTHON ?= python3
VENV ?= .venv

# Any other variable on make's command line is an option: EPOCHS=20 is --epochs=20, SEEDS="0 1" --seeds 0 1, DRY_RUN=yes
# --dry-run, DRY_RUN=no --no-dry-run. PRESET counts in the environment too. Values are quoted; only LISTS are split.
LISTS = SEEDS STEPS OVERWRITE FACTORS SBATCH IMAGES %BETAS %CROP_SCALE
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
quote = '$(subst ','\'',$1)'
split = $(foreach word,$1,$(call quote,$(word)))
name = $(shell echo '--$1' | tr A-Z_ a-z-)
list = $(if $(filter $(LISTS),$1),$(call name,$1) $(call split,$(value $1)))
yes = $(if $(filter yes,$(value $1)),$(call name,$1))
no = $(if $(filter no,$(value $1)),$(shell echo '$(call name,$1)' | sed -E 's/^(--|.*[.])/&no-/'))
option = $(or $(call list,$1),$(call yes,$1),$(call no,$1),$(call name,$1)=$(call quote,$(value $1)))
FROM_ENVIRONMENT = $(if $(filter environment,$(origin PRESET)),$(call option,PRESET))
OPTIONS = $(foreach v,$(filter-out PYTHON VENV TORCH_INDEX N IMAGE RUN $1,$(GIVEN)),$(call option,$v)) \
  $(foreach run,$(value RUN),--run $(call quote,$(run)))
RUNNER = @$(VENV)/bin/python runner.py
# All but Swin, the reference: in so few updates it learns nothing.
DEMO_STEPS = 0 1 2 3 4 5 6 7 kernel-5 8 kernel-9 kernel-11 9 10 11 12 13
# Not exported: make would expand a $ in their values.
unexport $(GIVEN)

# `make ablation-step 3 GPUS=8`: as many processes, which share the run.
TORCHRUN = $(if $(GPUS),$(if $(filter-out 1,$(words $(GPUS)))$(filter-out $(shell seq 1024),$(GPUS)),$(error \
  GPUS is $(GPUS): give how many processes share the run, one for each GPU))-m torch.distributed.run \
  --standalone --nproc-per-node=$(GPUS) $(NOHUP))
# Under nohup, where SIGHUP is ignored, torchrun would end with the terminal all the same.
NOHUP = $(shell sed -n 's/^SigIgn:.*[13579bdf]$$/--signals-to-handle=SIGTERM,SIGINT,SIGQUIT/p' \
  /proc/self/status 2>/dev/null)

TARGETS = help demo ablation-step all-ablations ablation status report judge pack unpack merge steps show check predict \
  export test test-all test-slurm lint clean
# `make ablation-step 3`: the words after these targets are words of the command, not targets.
ifneq (,$(filter ablation-step show check pack unpack merge,$(firstword $(MAKECMDGOALS))))
GOALS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
$(if $(filter $(TARGETS),$(GOALS)),$(error $(filter $(TARGETS),$(GOALS)) is a target of this Makefile: \
  python runner.py $(firstword $(MAKECMDGOALS)) takes it as a name))
.PHONY: $(GOALS)
$(foreach goal,$(GOALS),$(eval $(goal): ; @:))
endif
# One image, whose name may have spaces, or several.
FILES = $(if $(shell [ -e $(call quote,$(value IMAGE)) ] && echo yes),$(call quote,$(value IMAGE)),$(call \
  split,$(foreach image,$(value IMAGE),$(or $(wildcard $(image)),$(image)))))
WORDS = $(call split,$(GOALS) $(value N)) $(FILES)

.DEFAULT_GOAL := help
.PHONY: $(TARGETS)

help:  # the list of targets, in groups
	@echo "make TARGET [PRESET=food101|food101-h200|fashion-mnist|pocket] [DEVICE=auto|cpu|cuda] [any option of runner.py, as NAME=value]"
	@awk -F':.*  ## ' '/^## / { printf "\n%s\n", substr($$0, 4) } /^[a-z-]+:.*  ## / { printf "  make %-14s %s\n", $$1, $$2 }' \
	  $(firstword $(MAKEFILE_LIST))

## Try
demo: $(VENV)/run.stamp  ## train 17 small networks on drawn images, minutes on a CPU, then write the report
	$(RUNNER) all --preset pocket --steps $(DEMO_STEPS) $(OPTIONS)

show: $(VENV)/run.stamp  ## one step's network next to the step before: make show 5, or N=5
	$(RUNNER) show $(WORDS) $(FROM_ENVIRONMENT) $(OPTIONS)

steps: $(VENV)/run.stamp  ## the roadmap with parameters and FLOPs next to the paper's
	$(RUNNER) steps $(FROM_ENVIRONMENT) $(OPTIONS)

## Study
ablation-step: $(VENV)/run.stamp  ## train one step: make ablation-step 3, or N=3, or a name; GPUS=8: on 8 GPUs at once
	@$(VENV)/bin/python $(TORCHRUN) runner.py train $(WORDS) $(FROM_ENVIRONMENT) $(call OPTIONS,GPUS)

all-ablations: $(VENV)/run.stamp  ## train every step (SEEDS="0 1 2"), skip what is finished, then write the report
	$(RUNNER) all $(FROM_ENVIRONMENT) $(OPTIONS)

ablation: $(VENV)/run.stamp  ## any roadmap and design: make ablation ROADMAP=recipe DESIGN=leave-one-out PRESET=pocket
	$(RUNNER) all $(FROM_ENVIRONMENT) $(OPTIONS)

check: $(VENV)/run.stamp  ## check a roadmap file: make check my.toml
	$(RUNNER) check $(WORDS) $(FROM_ENVIRONMENT) $(OPTIONS)

## Look
status: $(VENV)/run.stamp  ## a study's progress: queued, running, done, failed and why (WATCH=yes, FORMAT=json)
	$(RUNNER) status $(FROM_ENVIRONMENT) $(OPTIONS)

report: $(VENV)/run.stamp  ## write the report of whatever runs exist
	$(RUNNER) report $(FROM_ENVIRONMENT) $(OPTIONS)

judge: $(VENV)/run.stamp  ## verdicts for any table of variant, seed, value: make judge FILE=results.csv [MARGIN=0.3]
	$(RUNNER) judge $(call quote,$(value FILE)) $(call OPTIONS,FILE)

pack: $(VENV)/run.stamp  ## a study in one small file for its report, no weights: make pack pocket
	$(RUNNER) pack $(WORDS) $(OPTIONS)

unpack: $(VENV)/run.stamp  ## a study's folder from a pack, to continue it here: make unpack both.pack
	$(RUNNER) unpack $(WORDS) $(OPTIONS)

merge: $(VENV)/run.stamp  ## parts of a study from several machines in one: make merge A.pack B.pack OUT=both.pack
	$(RUNNER) merge $(WORDS) $(OPTIONS)

## Use
predict: $(VENV)/run.stamp  ## classify images: make predict IMAGE=photo.jpg [RUN="runs/STUDY/STEP/seed-0 ..."]
	$(RUNNER) predict $(WORDS) $(OPTIONS)

export: $(VENV)/run.stamp  ## a network for use elsewhere: make export OUT=folder FORMAT=safetensors [RUN=...]
	$(RUNNER) export $(OPTIONS)

## Develop
test: $(VENV)/dev.stamp  ## the quick tests, on all cores
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: $(VENV)/dev.stamp  ## all tests: kills, browser, Slurm (Debian: slurm-wlm, munge) and the slow ones too
	$(VENV)/bin/python -m pytest -n auto --dist worksteal
	$(MAKE) test-slurm

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
