# Every target sets up what it needs first; `make` alone lists them.
PYTHON := .venv/bin/python
BIN := .venv/bin
SCENARIO ?=
UPGRADE ?=
BPF := $(patsubst %.c,%.o,$(wildcard appliance/kernel/*.bpf.c))
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet \
  $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-check setup-bpf bpf check test test-lab lab lab-image bench demo lock hooks clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install missing system packages and the locked virtual environment
	@tools/setup.sh lab

setup-check:
	@tools/setup.sh check

setup-bpf:
	@command -v clang >/dev/null && test -e /usr/include/bpf/bpf_helpers.h || \
	  { echo 'missing: type apt-get install clang libbpf-dev'; exit 1; }

bpf: $(BPF) ## build what runs inside the kernel, with clang

%.bpf.o: %.bpf.c | setup-bpf
	clang -O2 -Wall -Wextra -Werror -target bpf -mcpu=v3 -idirafter /usr/include/$$(uname -m)-linux-gnu \
	  -c $< -o $@

check: setup-check bpf ## format, lint, types, import rules, all tests that need no lab
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTHON) -m pytest -q -n auto --dist worksteal --ignore=tests/lab

test: check test-lab ## everything that CI runs

test-lab: lab-image ## the stories of tests/lab, in the virtual-time lab
	$(PYTHON) -m pytest tests/lab

lab: lab-image ## run one scenario file: make lab SCENARIO=FILE.py
	@test -n "$(SCENARIO)" || { echo 'usage: make lab SCENARIO=FILE.py'; exit 2; }
	@$(PYTHON) -m lab run "$(SCENARIO)"

lab-image: setup bpf ## build the lab's guest, if it is not there
	@$(PYTHON) -m lab image

bench: lab-image ## the benchmarks; results in build/bench and docs/BENCHMARKS.md
	$(PYTHON) -m tests.bench

demo: lab-image ## three sites, a brownout, a blackout and the way back
	@$(PYTHON) -m lab.demo

lock: setup-check ## bring the locks up to pyproject.toml; UPGRADE=1 takes the newest of everything
	$(LOCK) pyproject.toml --output-file requirements/run.lock
	$(LOCK) pyproject.toml --extra lab --output-file requirements/lab.lock
	$(LOCK) pyproject.toml --extra dev --output-file requirements/dev.lock
	printf 'setuptools>=77\n' | $(LOCK) - --output-file requirements/build.lock

hooks: setup-check ## run `make check` before every commit
	$(BIN)/pre-commit install

clean: ## remove everything that was built, the virtual environment included
	rm -rf $(BPF) build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
