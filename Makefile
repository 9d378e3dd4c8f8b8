# mlworkbench: `make demo` runs the main job end to end, `make test` the tests; each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test torture check benchmarks export clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $(STAMP)

install: $(STAMP)  ## make .venv with everything in it

demo: $(STAMP)  ## the whole road, narrated: from simulated payments to a promoted champion
	$(BIN)/python docs/demo.py demo

test: $(STAMP) check  ## the checks and the tests
	$(BIN)/python -m pytest -q -n 3

torture: $(STAMP)  ## fault and statistical tests with their full counts
	TORTURE=1 $(BIN)/python -m pytest -q --timeout 7200

check: $(STAMP)  ## library equals notebooks, notebooks clean, imports only downwards, style
	$(BIN)/python tests/check.py

benchmarks: $(STAMP)  ## ratios against peers and floors
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

export: $(STAMP)  ## notebooks to library, after an edit
	$(BIN)/ruff format -q nbs
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export
	$(BIN)/ruff format -q mlworkbench
	$(BIN)/python docs/readme.py

clean:  ## remove what was made
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
