# Everything sets itself up: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
DOCS := .venv-docs
WORK := work

# What `make lint` reads, as far as it is there.
PYTHON_FILES := $(wildcard src tests benchmarks examples .ci)

.PHONY: env demo test lint docs bench clean

env: $(READY)

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isotone needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[models,eval,report,dev]'
	touch $@

# A real language model, compressed four ways, verified, and asked the same question.
demo: $(READY)
	$(BIN)/python benchmarks/inputs/smollm2_dense.py $(WORK)/smollm2
	$(BIN)/python examples/demo.py $(WORK)/smollm2 $(WORK)

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy

# The documentation as a site, in site/. A broken link, a missing anchor, or a public name without a
# whole docstring fails. The sources are read and not imported, so nothing else is installed.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.ready: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt \
		$$($(DOCS)/bin/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

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
	rm -rf $(VENV) $(BENCH) $(DOCS) $(WORK) build site
