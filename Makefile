#> Five artifacts, one way to use each. ARTIFACT is helix, metis, beta, puzzle or vocab.
#>
#>   make quick                  the small suite of every artifact, then results/report.html
#>   make test                   the tests
#>   make ARTIFACT-quick         one artifact's small suite (minutes, no GPU needed)
#>   make ARTIFACT-full          all of its experiments
#>   make ARTIFACT-report        its tables, figures and claims from the records that exist
#>   make ARTIFACT-test          the tests of common/ and of this artifact
#>   make ARTIFACT-image         its container image
#>   make ARTIFACT-shell         a shell where it is installed
#>
#>   make images full report     the same for every artifact
#>   make bench                  speed against the stated targets
#>   make lint types             ruff; basedpyright
#>   make unit slow engine       the tests in .venv; the slow ones; those that build and run images
#>   make lock lock-check        write the pinned requirements again; fail when they are stale
#>   make clean                  remove .venv and caches (results stay)
#>
#> Variables, as in make metis-full RUNTIME=local ARGS=--again:
#>   RUNTIME      docker where an engine answers, otherwise local (a .venv in this folder)
#>   DOCKER       the engine's command: docker or podman
#>   GPUS         all, 0 (none), or what the engine's GPU flag takes
#>   GPU_FLAGS    the GPU flags themselves
#>   BASE_IMAGE   another base for the images
#>   BUILD_FLAGS  more flags for the image build
#>   RUN_FLAGS    more flags for the container
#>   RESULTS      where results go (results)
#>   ARGS         more arguments for the command that is run
#>   PYTHON       the interpreter that .venv is made with (python3)
#>   TORCH_FLAGS  more flags for installing torch, such as where its CPU builds are

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --keep-going # a claim that fails in one artifact stops no other's suite
.NOTPARALLEL: # timings are results here, and two pips would share one .venv

ARTIFACTS := helix metis beta puzzle vocab
package = $(patsubst vocab,vocab_parallel,$1)
present := $(foreach a,$(ARTIFACTS),$(if $(wildcard $(call package,$a)/cli.py),$a))
absent := $(filter-out $(present),$(ARTIFACTS))
targets_of = $(foreach v,image quick full report test shell,$(1:%=%-$v))

DOCKER ?= docker
GPUS ?= $(if $(shell command -v nvidia-smi),all,0)
GPU_FLAGS ?= $(if $(filter-out 0,$(GPUS)),$(gpu_flags) --ulimit memlock=-1 --ulimit stack=67108864)
BASE_IMAGE ?=
BUILD_FLAGS ?=
RUN_FLAGS ?=
RESULTS ?= results
ARGS ?=
PYTHON ?= python3
TORCH_FLAGS ?=
ifndef RUNTIME
RUNTIME := $(shell $(DOCKER) info >/dev/null 2>&1 && echo docker || echo local)
endif

gpu_flags = $(if $(findstring podman,$(DOCKER)),--device nvidia.com/gpu=$(GPUS),--gpus '"$(GPUS)"')
# podman's init is a package of its own, and without root it must be told to keep the caller's ids.
engine_flags = $(if $(findstring podman,$(DOCKER)),$(shell [ $$(id -u) = 0 ] || echo --userns=keep-id),--init)
revision = $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
image = quintet-$1:$(revision)
python := .venv/bin/python
pip := $(python) -m pip --disable-pip-version-check install --quiet
packages := $(call package,$(ARTIFACTS))
locks := requirements.txt requirements-base.txt requirements-dev.txt $(packages:%=docker/%/requirements.txt)

# $1 is the artifact. Whoever calls owns the results: the container runs under the caller's ids.
tty := $(shell [ -t 0 ] && [ -t 2 ] && echo --interactive --tty)
container = $(DOCKER) run --rm --ipc=host $(engine_flags) $(tty) --user $$(id -u):$$(id -g) \
	--volume "$(abspath $(RESULTS)):/results" $(GPU_FLAGS) $(RUN_FLAGS)
local_cli = $(python) -m $(call package,$1) $2 --out "$(RESULTS)"
docker_cli = $(container) $(call image,$1) $2 --out /results
tests_of = tests/common tests/contract tests/$(call package,$1)
local_test = $(python) -m pytest $(tests_of)
docker_test = $(container) --volume "$(CURDIR)/tests:/app/tests:ro" --workdir /app \
	--entrypoint python $(call image,$1) -m pytest -p no:cacheprovider $(tests_of)
local_shell = PATH="$(CURDIR)/.venv/bin:$$PATH" bash
docker_shell = $(container) --interactive --tty --volume "$(CURDIR):/work" --workdir /work \
	--entrypoint bash $(call image,$1)
say = @echo "$@: RUNTIME=$(RUNTIME)$(if $(filter docker,$(RUNTIME)), ($(DOCKER)))"

.PHONY: help images quick full test report bench lint types unit slow engine lock lock-check clean \
	$(locks:%=new-%) $(call targets_of,$(ARTIFACTS)) $(ARTIFACTS:%=ready-docker-%) $(ARTIFACTS:%=ready-local-%)

help:
	@sed -n 's/^#> \{0,1\}//p' $(MAKEFILE_LIST)

images: $(present:%=%-image)
quick: $(present:%=%-quick)
full: $(present:%=%-full)
report: $(present:%=%-report)
test: $(if $(filter docker,$(RUNTIME)),$(present:%=%-test),unit)

$(present:%=%-image): %-image:
	$(DOCKER) build $(BUILD_FLAGS) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
		--build-arg REVISION=$(revision) --tag $(call image,$*) --file docker/$(call package,$*)/Dockerfile .

$(foreach v,quick full report test shell,$(present:%=%-$v)): %: | $(RESULTS)
$(present:%=ready-docker-%): ready-docker-%: %-image
$(present:%=ready-local-%): ready-local-%: .venv/.has-%

$(present:%=%-quick): %-quick: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_cli,$*,quick) $(ARGS)

$(present:%=%-full): %-full: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_cli,$*,full) $(ARGS)

$(present:%=%-report): %-report: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_cli,$*,report) $(ARGS)

$(present:%=%-test): %-test: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_test,$*) $(ARGS)

$(present:%=%-shell): %-shell: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_shell,$*)

$(call targets_of,$(absent)):
	$(error $@: this artifact is not here yet (there is no $(call package,$(firstword $(subst -, ,$@)))/cli.py))

$(RESULTS):
	mkdir -p "$@"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# torch before the artifacts: some of their packages need it, and their hashed sets leave it out.
.venv/.has-torch: requirements-base.txt requirements-torch.txt | .venv/bin/python
	$(pip) --require-hashes --requirement requirements-base.txt
	$(pip) --requirement requirements-torch.txt $(TORCH_FLAGS) && touch $@

.SECONDEXPANSION:
$(ARTIFACTS:%=.venv/.has-%): .venv/.has-%: docker/$$(call package,%)/requirements.txt pyproject.toml .venv/.has-torch
	$(pip) --require-hashes --requirement $<
	$(pip) --no-deps --no-build-isolation --editable . && touch $@

.venv/.has-dev: requirements-dev.txt | .venv/bin/python
	$(pip) --require-hashes --requirement $< && touch $@

unit: .venv/.has-dev $(present:%=.venv/.has-%)
	$(python) -m pytest $(ARGS)

slow: .venv/.has-dev $(present:%=.venv/.has-%)
	$(python) -m pytest -m "slow and not engine and not gpu" $(ARGS)

engine: .venv/.has-dev $(present:%=.venv/.has-%)
	$(python) -m pytest -m engine tests/docker $(ARGS)

bench: .venv/.has-dev $(present:%=.venv/.has-%)
	$(python) -m pytest tests/bench $(ARGS)

lint: .venv/.has-dev
	$(python) -m ruff check . && $(python) -m ruff format --check .

types: .venv/.has-dev $(present:%=.venv/.has-%)
	.venv/bin/basedpyright --pythonpath $(python)

# The full set is resolved first and bounds the others, so that a version is the same in all files.
compile := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-package torch --constraints requirements-torch.txt \
	--custom-compile-command "make lock"
subset := $(compile) --constraints requirements.txt --no-annotate

lock: $(locks:%=new-%)

new-requirements.txt: .venv/.has-dev
	$(compile) pyproject.toml --all-extras --output-file requirements.txt $(ARGS)

new-requirements-base.txt: new-requirements.txt
	$(subset) docker/base.txt --output-file requirements-base.txt

new-requirements-dev.txt: new-requirements.txt
	$(subset) pyproject.toml --extra dev --output-file requirements-dev.txt

$(packages:%=new-docker/%/requirements.txt): new-docker/%/requirements.txt: new-requirements.txt
	$(subset) pyproject.toml --extra $* --extra report --extra test --excludes docker/base.txt --output-file $(@:new-%=%)

lock-check: lock
	git diff --exit-code --stat -- $(locks)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
