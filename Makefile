# Needs Python 3.11 or newer, its venv module, and make; everything else is installed into .venv on first use.
#   make demo    watch a soft prompt being found for Saudi Arabia (about two minutes)
#   make test    all tests          make check   lint, types, layers, fast tests
#   make test-oldest    the fast tests with the oldest versions that pyproject.toml admits, in a venv of its own (KEEP=torch: but for it)
#   make bench   the benchmarks     make docs    check the pages' links        make clean   remove caches and builds
# Another interpreter: make PYTHON=python3.12 demo. Options for pip, such as an index with CPU builds of torch:
# make PIP_FLAGS="--index-url URL" demo.

PYTHON    ?= $(or $(shell command -v python3.11),python3)
VENV      ?= .venv
PIP_FLAGS ?=
VERSIONS  ?= constraints.txt
BIN       := $(VENV)/bin
# One file's tests stay together, with what they share.
SIDE_BY_SIDE ?= -n auto --maxprocesses 8 --dist loadfile
INSTALL    = $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) -c $(VERSIONS)
ENSURE_VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "softde needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=...")' \
	&& { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); }

# Small models, and tests side by side: more threads are slower.
test test-oldest check: export OMP_NUM_THREADS = 1

.PHONY: demo test test-oldest oldest check bench docs clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.softde-demo
	$(BIN)/softde align "Saudi Arabia" --out runs/saudi-arabia

test: $(VENV)/.softde-test
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-oldest: oldest
	.cache/oldest/bin/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

oldest:
	mkdir -p build
	$(PYTHON) tools/floors.py $(KEEP) > build/oldest.new
	cmp -s build/oldest.new build/oldest.txt || cp build/oldest.new build/oldest.txt
	$(MAKE) VENV=.cache/oldest VERSIONS=build/oldest.txt .cache/oldest/.softde-test

check: $(VENV)/.softde-dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

bench: $(VENV)/.softde-demo
	set -e; for script in $(filter-out %_quality.py %_methods.py %_curves.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$script; done  # those take hours

docs:
	$(PYTHON) tools/check_links.py README.md CHANGELOG.md docs/*.md

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find softde tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +

# One stamp per set of packages: nothing is reinstalled until pyproject.toml or the versions change.
$(VENV)/.softde-demo: EXTRA =
$(VENV)/.softde-test: EXTRA = [test]
$(VENV)/.softde-dev:  EXTRA = [dev]
$(VENV)/.softde-%: pyproject.toml $(VERSIONS)
	@$(ENSURE_VENV)
	@echo "Installing softde$(EXTRA) into $(VENV) (torch is large: minutes on the first run)"
	@$(INSTALL) -e ".$(EXTRA)"
	@touch $@
