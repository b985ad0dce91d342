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
#>   make images full report     the same for every artifact; make -j images builds side by side
#>   make sbom                   what each image holds over its base (CycloneDX), also its /app/sbom.json
#>   make gpu                    on a machine with GPUs, what only they can show (20 minutes at most)
#>   make docs                   CLAIMS.md, the READMEs' figures and a site of all pages (site/)
#>   make bench                  speed beside yardsticks, as ratios (minutes); writes bench.md
#>   make lint types             ruff; basedpyright
#>   make unit slow engine       the tests in .venv; the slow ones; those that build and run images
#>   make lock lock-check        write the pinned requirements again; fail when they are stale
#>   make clean                  remove .venv and caches (results stay)
#>
#> Variables, as in make metis-full RUNTIME=local ARGS=--again:
#>   RUNTIME      docker where an engine answers, otherwise local (a .venv in this folder)
#>   DOCKER       the engine's command: docker or podman
#>   GPUS         all, a count (0: none), or device=0,1 for these
#>   GPU_FLAGS    the GPU flags themselves
#>   BASE_IMAGE   another base for the images
#>   SOURCE_URL   where the source is published, a label of the images
#>   BUILD_FLAGS  more flags for the image build
#>   RUN_FLAGS    more flags for the container
#>   RESULTS      where results go (results)
#>   ARGS         more arguments for the command that is run
#>   JOBS         processes that the tests are spread over (2)
#>   PYTHON       the interpreter that .venv is made with (python3)
#>   TORCH_FLAGS  more flags for installing torch, such as where its CPU builds are

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --keep-going # a claim that fails in one artifact stops no other's suite
ifndef SIDE_BY_SIDE
.NOTPARALLEL: # timings are results here, and two pips would share one .venv
endif

ARTIFACTS := helix metis beta puzzle vocab
package = $(patsubst vocab,vocab_parallel,$1)
present := $(foreach a,$(ARTIFACTS),$(if $(wildcard $(call package,$a)/artifact.py),$a))
absent := $(filter-out $(present),$(ARTIFACTS))
targets_of = $(foreach v,image quick full report test gpu shell,$(1:%=%-$v))

DOCKER ?= docker
GPUS ?= $(if $(shell command -v nvidia-smi),all,0)
GPU_FLAGS ?= $(if $(filter-out 0,$(GPUS)),$(gpu_flags) --ulimit memlock=-1 --ulimit stack=67108864)
BASE_IMAGE ?=
SOURCE_URL ?=
BUILD_FLAGS ?=
RUN_FLAGS ?=
RESULTS ?= results
ARGS ?=
PYTHON ?= python3
JOBS ?= 2
TORCH_FLAGS ?=
ifndef RUNTIME
RUNTIME := $(shell $(DOCKER) info >/dev/null 2>&1 && echo docker || echo local)
endif

gpu_flags = $(if $(findstring podman,$(DOCKER)),$(gpus:%=--device nvidia.com/gpu=%),--gpus '"$(GPUS)"')
# podman wants each GPU by its number: a count means the first ones.
comma := ,
gpus = $(if $(filter device=%,$(GPUS)),$(subst $(comma), ,$(patsubst device=%,%,$(GPUS))),$(if $(filter all,$(GPUS)),all,$(shell seq 0 $$(($(GPUS) - 1)))))
# podman's init is a package of its own, and without root it must be told to keep the caller's ids.
engine_flags = $(if $(findstring podman,$(DOCKER)),$(shell [ $$(id -u) = 0 ] || echo --userns=keep-id),--init)
revision = $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
image = quintet-$1:$(revision)
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The commit's own time, so that an image made again of the same commit is the same one.
created = $(or $(shell git log -1 --format=%cI 2>/dev/null),$(shell date -u +%Y-%m-%dT%H:%M:%SZ))
stated = --build-arg REVISION=$(revision) --build-arg VERSION=$(version) --build-arg CREATED=$(created) \
	$(if $(SOURCE_URL),--label org.opencontainers.image.source=$(SOURCE_URL))
base_of = $(or $(BASE_IMAGE),$(shell sed -n 's/^ARG BASE_IMAGE=//p' docker/$1/Dockerfile))
python := .venv/bin/python
pip := $(python) -m pip --disable-pip-version-check install --quiet
packages := $(call package,$(ARTIFACTS))
locks := requirements.txt requirements-base.txt requirements-dev.txt requirements-docs.txt $(packages:%=docker/%/requirements.txt)

# $1 is the artifact. Whoever calls owns the results: the container runs under the caller's ids.
tty := $(shell [ -t 0 ] && [ -t 2 ] && echo --interactive --tty)
results = $(if $(filter /%,$(firstword $(RESULTS))),$(RESULTS),$(CURDIR)/$(RESULTS))
container = mkdir -p "$(results)" && $(DOCKER) run --rm --ipc=host $(engine_flags) $(tty) --user $$(id -u):$$(id -g) \
	--volume "$(results):/results" $(GPU_FLAGS) $(RUN_FLAGS)
local_cli = $(python) -m $(call package,$1) $2 --out "$(RESULTS)"
docker_cli = $(container) $(call image,$1) $2 --out /results
# `make test` over all images tries what they share in the first one; a single image's test does too.
shared = $(if $(and $(filter test,$(MAKECMDGOALS)),$(filter-out $(firstword $(present)),$1)),,tests/common )
tests_of = $(shared)tests/contract tests/$(call package,$1)
spread = --numprocesses $(JOBS) --dist loadfile
local_test = $(python) -m pytest $(spread) $(tests_of)
docker_test = $(container) --volume "$(CURDIR)/tests:/app/tests:ro" --workdir /app \
	--entrypoint python $(call image,$1) -m pytest -p no:cacheprovider $(spread) $(tests_of)
gpu_tests = -m gpu --numprocesses 0 tests/gpu/test_$(call package,$1).py
local_gpu = RESULTS="$(results)" $(python) -m pytest $(gpu_tests)
docker_gpu = $(container) --env RESULTS=/results --volume "$(CURDIR)/tests:/app/tests:ro" --workdir /app \
	--entrypoint python $(call image,$1) -m pytest -p no:cacheprovider $(gpu_tests)
local_shell = PATH="$(CURDIR)/.venv/bin:$$PATH" bash
docker_shell = $(container) --interactive --tty --volume "$(CURDIR):/work" --workdir /work \
	--entrypoint bash $(call image,$1)
say = @echo "$@: RUNTIME=$(RUNTIME)$(if $(filter docker,$(RUNTIME)), ($(DOCKER)))"

.PHONY: help images sbom $(ARTIFACTS:%=sbom-%) quick full test report gpu docs bench lint types unit slow engine lock lock-check clean \
	$(locks:%=new-%) $(call targets_of,$(ARTIFACTS)) $(ARTIFACTS:%=ready-docker-%) $(ARTIFACTS:%=ready-local-%)

help:
	@sed -n 's/^#> \{0,1\}//p' $(MAKEFILE_LIST)

# Nothing is timed in building images, and none shares a file with another.
images:
	@$(MAKE) --no-print-directory SIDE_BY_SIDE=yes RUNTIME=$(RUNTIME) $(present:%=%-image)

quick: $(present:%=%-quick)
full: $(present:%=%-full)
report: $(present:%=%-report)
gpu: $(present:%=%-gpu)
test: $(if $(filter docker,$(RUNTIME)),$(present:%=%-test),unit)

$(present:%=%-image): %-image:
	$(DOCKER) build $(BUILD_FLAGS) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
		$(stated) --tag $(call image,$*) --file docker/$(call package,$*)/Dockerfile .

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

$(present:%=%-gpu): %-gpu: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_gpu,$*) $(ARGS)

$(present:%=%-shell): %-shell: ready-$(RUNTIME)-%
	$(say)
	$(call $(RUNTIME)_shell,$*)

$(call targets_of,$(absent)):
	$(error $@: this artifact is not here yet (there is no $(call package,$(firstword $(subst -, ,$@)))/artifact.py))

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

.venv/.has-docs: requirements-docs.txt | .venv/bin/python
	$(pip) --require-hashes --requirement $< && touch $@

.venv/.has-triton: requirements-triton.txt .venv/.has-torch
	$(python) -c 'import triton' 2>/dev/null || $(pip) --requirement $<
	touch $@

unit: .venv/.has-dev $(present:%=.venv/.has-%)
	$(python) -m pytest $(spread) $(ARGS)

slow: .venv/.has-dev .venv/.has-triton $(present:%=.venv/.has-%)
	$(python) -m pytest $(spread) -m "slow and not engine and not gpu" $(ARGS)

engine: .venv/.has-dev $(present:%=.venv/.has-%)
	$(python) -m pytest -m engine tests/docker $(ARGS)

docs: .venv/.has-docs $(present:%=.venv/.has-%)
	for page in claims figures site; do RESULTS="$(results)" $(python) -m docs.$$page; done
	.venv/bin/mkdocs build --quiet --config-file docs/mkdocs.yml && echo "open site/index.html"

sbom: .venv/.has-dev $(present:%=sbom-%)

$(present:%=sbom-%): sbom-%: .venv/.has-dev
	@mkdir -p "$(results)/sbom" && $(python) docker/sbom.py docker/$(call package,$*)/requirements.txt \
		--name quintet-$* --base $(call base_of,$(call package,$*)) > "$(results)/sbom/$*.json" && echo "$(results)/sbom/$*.json"

bench: .venv/.has-dev $(present:%=.venv/.has-%)
	@echo "$@: about five minutes on two cores; the table goes to $(results)/bench.md"
	RESULTS="$(results)" $(python) -m pytest tests/bench $(ARGS)

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

new-requirements-docs.txt: new-requirements.txt
	$(subset) pyproject.toml --extra docs --output-file requirements-docs.txt

$(packages:%=new-docker/%/requirements.txt): new-docker/%/requirements.txt: new-requirements.txt
	$(subset) pyproject.toml --extra $* --extra report --extra test --excludes docker/base.txt --output-file $(@:new-%=%)

lock-check: lock
	git diff --exit-code --stat -- $(locks)

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
