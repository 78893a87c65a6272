# make demo and make test are all a fresh machine needs: each makes $(VENV) when it is missing or older
# than pyproject.toml or $(CONSTRAINTS).
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
RUNS ?= runs
EXTRAS ?= train,eval,demo,app,dev,docs
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
IS_NEW := import sys, venv; raise SystemExit(sys.version_info < (3, 11))
GPU_PYTHON ?= $(if $(wildcard $(PY)),$(PY),python3)
PYTHON ?= $(firstword $(foreach python,python3.11 python3 python,\
	$(if $(shell $(python) -c '$(IS_NEW)' 2>/dev/null && echo yes),$(python))))

.PHONY: demo demo-colour test test-oldest test-newest lint bench gpu gpu-prepare docs clean

demo: $(STAMP)
	$(PY) examples/demo.py --output_dir $(RUNS)/demo

# Its 74 MB of pictures come by `npm pack`, or from a folder: ARGS="--package FOLDER".
demo-colour: $(STAMP)
	$(PY) examples/demo_colour.py --output_dir $(RUNS)/demo-colour $(ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

# The lower bounds of pyproject.toml, and whatever is newest: each in an environment of its own, with
# PYTHON=python3.12 by another Python (not the environment's, if it is there already).
test-oldest:
	$(MAKE) test VENV=$(VENV)-oldest CONSTRAINTS=constraints-oldest.txt EXTRAS=train,eval,demo,dev

test-newest:
	$(MAKE) test VENV=$(VENV)-newest CONSTRAINTS= EXTRAS=train,eval,demo,dev

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -s -m "" tests/benchmarks $(ARGS)

# A GPU machine may be bare, without an index to install from: nothing here needs $(VENV).
gpu:
	PYTHONPATH="tests$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) -m gpu.run $(ARGS)

gpu-prepare:
	PYTHONPATH="tests$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) -m gpu.prepare

docs: $(STAMP)
	$(PY) -m sphinx -q -W --keep-going docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf build dist docs/_build .pytest_cache .ruff_cache

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "ddpm_pipeline needs Python 3.11 or newer on the PATH" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(PY) install --quiet pip; }  # Debian may lack ensurepip
	$(PY) -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[$(EXTRAS)]'
	@touch $@
