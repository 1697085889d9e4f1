# Everything sets itself up: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
WORK := work

.PHONY: env demo test lint bench clean

env: $(READY)

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isotone needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[models,eval,report,dev]'
	touch $@

# A real language model, compressed four ways, verified, and asked the same question.
demo: $(READY)
	$(BIN)/python benchmarks/demo.py $(WORK)

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

# Minutes, not seconds; benchmarks/README.md says what each part needs.
bench: $(BENCH)/.ready
	$(BENCH)/bin/python benchmarks/peers.py
	$(BENCH)/bin/python benchmarks/coders.py
	$(BENCH)/bin/python benchmarks/frontier.py
	$(BENCH)/bin/python benchmarks/large.py --sizes 1

# The peers have a place of their own: transformers imports hqq wherever it finds it.
$(BENCH)/.ready: pyproject.toml constraints.txt CMakeLists.txt benchmarks/requirements.txt $(wildcard native/*)
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt \
		-e '.[models,eval,report]' -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) $(WORK) build
