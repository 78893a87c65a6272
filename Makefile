# make demo and make test are all a fresh machine needs: each makes $(VENV) when it is missing or older
# than pyproject.toml or constraints.txt.
VENV ?= .venv
RUNS ?= runs
EXTRAS := train,eval,demo,dev,docs
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
IS_NEW := import sys, venv; raise SystemExit(sys.version_info < (3, 11))
GPU_PYTHON ?= $(if $(wildcard $(PY)),$(PY),python3)
PYTHON ?= $(firstword $(foreach python,python3.11 python3 python,\
	$(if $(shell $(python) -c '$(IS_NEW)' 2>/dev/null && echo yes),$(python))))

.PHONY: demo test lint bench gpu gpu-prepare docs clean

demo: $(STAMP)
	$(PY) examples/demo.py --output_dir $(RUNS)/demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -s -m "" tests/benchmarks $(ARGS)

# A GPU machine may be bare, without an index to install from: nothing here needs $(VENV).
gpu:
	PYTHONPATH=tests $(GPU_PYTHON) -m gpu.run $(ARGS)

gpu-prepare:
	PYTHONPATH=tests $(GPU_PYTHON) -m gpu.prepare

docs: $(STAMP)
	$(PY) -m sphinx -q -W --keep-going docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf build dist docs/_build .pytest_cache .ruff_cache

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "ddpm_pipeline needs Python 3.11 or newer on the PATH" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(PY) install --quiet pip; }  # Debian may lack ensurepip
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
