# `make demo` and `make test` need nothing but Python, make and a package index: they create .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo

.PHONY: help demo test check format bench thimble clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY)  ## train a classifier on the sample messages, evaluate it and use it (about a minute)
	@rm -rf $(DEMO)
	$(BIN)/gptailor train classifier src/gptailor/assets/sample/messages.csv --out $(DEMO)
	$(BIN)/gptailor predict $(DEMO) "The parcel came a day early, thank you!" \
	  "Could you tell me when the parcel will come?" "Please send the parcel to my office instead."
	@echo "Now yours:  $(BIN)/gptailor train classifier YOUR_FILE.csv   (inspect YOUR_FILE.csv looks before it trains)"

test: $(READY)  ## run the tests (offline, a few minutes)
	$(BIN)/python -m pytest -n 2

check: $(READY)  ## lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check src
	$(BIN)/python -m pytest tests/test_layers.py

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## compare with transformers on this machine (several minutes)
	$(BIN)/python benchmarks/run.py

thimble: $(READY)  ## train the base model that comes with GPTailor (hours on two cores): make thimble TEXT=folder
	$(BIN)/python scripts/make_thimble.py $(TEXT)

clean:  ## remove the environment and the runs
	rm -rf $(VENV) runs

$(READY): pyproject.toml constraints.txt
	@echo "Creating the environment in $(VENV) (about 2 GB; torch is the largest part) ..."
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
