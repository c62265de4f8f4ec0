# `make demo` and `make test` need nothing but Python, make and a package index: they create .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo
SAMPLE := src/gptailor/assets/sample

.PHONY: help demo test test-slow coverage mutants check format bench thimble clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY)  ## train, evaluate and use a classifier and an assistant on the samples (a minute and a half)
	@rm -rf $(DEMO) $(DEMO)-assistant
	$(BIN)/gptailor train classifier $(SAMPLE)/messages.csv --out $(DEMO)
	$(BIN)/gptailor predict $(DEMO) "The parcel came a day early, thank you!" \
	  "Could you tell me when the parcel will come?" "Please send the parcel to my office instead."
	$(BIN)/gptailor train assistant $(SAMPLE)/questions.json --out $(DEMO)-assistant \
	  --max-new-tokens 40
	$(BIN)/gptailor generate $(DEMO)-assistant "How much deposit do you want?" --temperature 0
	$(BIN)/gptailor generate $(DEMO)-assistant "Could you deliver two bicycles to the hotel by the river?" --temperature 0
	$(BIN)/gptailor generate $(DEMO)-assistant "I have lost the key somewhere in the park. What will it cost me?" --temperature 0
	@echo "Now yours:  $(BIN)/gptailor train classifier YOUR_TEXTS.csv   (inspect YOUR_TEXTS.csv looks before it trains)"
	@echo "            $(BIN)/gptailor train assistant YOUR_QUESTIONS.json   (inspect YOUR_QUESTIONS.json --task assistant)"
	@echo "            $(BIN)/gptailor chat $(DEMO)-assistant   talks with the shop's assistant"

test: $(READY)  ## run the tests (offline, a few minutes)
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)  ## what takes minutes: runs killed 72 times, at any moment; 120,000 broken files
	$(BIN)/python -m pytest -m slow

# Without tests/fuzz: it bounds seconds, of which the measuring takes many.
coverage: $(READY)  ## what the tests reach: lines and branches (twice as long as test)
	$(BIN)/python -m pytest -n 2 --ignore=tests/fuzz --cov
	@$(BIN)/coverage json -q -o - | $(BIN)/python -c "import json, sys; found = json.load(sys.stdin)['totals']; \
	  print(*(f'{found[key]:.1f} % ' + key for key in ('percent_statements_covered', 'percent_branches_covered')))"

mutants: $(READY)  ## faults that no test sees (an hour; in a copy): make mutants ONLY="gptailor.data.splits*"
	$(BIN)/mutmut run $(ONLY)
	@$(BIN)/mutmut results

check: $(READY)  ## lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check src
	$(BIN)/python -m pytest tests/test_layers.py

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## speed and memory against the peers on this machine (hours; ROWS="classify generate" for some)
	$(BIN)/python benchmarks/run.py $(ROWS)

thimble: $(READY)  ## train the base model that comes with GPTailor (hours on two cores): make thimble TEXT=folder MEASURED=folder
	$(BIN)/python scripts/make_thimble.py $(TEXT) $(MEASURED)

clean:  ## remove the environments and the runs
	rm -rf $(VENV) runs mutants benchmarks/.envs benchmarks/.work

$(READY): pyproject.toml constraints.txt
	@echo "Creating the environment in $(VENV) (about 2 GB; torch is the largest part) ..."
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
