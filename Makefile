# Needs Python 3.11 to 3.14, git, make and a package index; everything else is set up here, in .venv.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.installed
WITH_VENV := PATH="$(BIN):$$PATH" DVC_NO_ANALYTICS=1 NO_ALBUMENTATIONS_UPDATE=1
PYTEST := $(WITH_VENV) OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest
# bytecode is written at install, and by each first import after it
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repro zoo compare pull test test-all lint ui lock clean

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

repro: $(STAMP) ## run the main job: raw images to reports/index.html, only what changed, on all cores (make repro JOBS=1)
	$(WITH_VENV) python -m pipeline repro $(if $(JOBS),--jobs $(JOBS))

zoo: $(STAMP) ## run recipes/zoo.yaml, a run for every idea, in build/zoo; keep its small results in reports/zoo (make zoo JOBS=2)
	$(WITH_VENV) python .ci/zoo.py $(if $(JOBS),--jobs $(JOBS)) $(if $(NOTE),--note)

BASE := main
compare: $(STAMP) ## compare the workspace with BASE (make compare BASE=main): build/compare.md and .html; exit 2 when a gate fails
	$(WITH_VENV) python -m pipeline compare $(BASE) --md build/compare.md --html build/compare.html \
		--json build/compare.json $(if $(LINK),--link '$(LINK)')

pull: $(STAMP) ## get stored results from the DVC remote, where there is one
	@if [ -n "$$($(WITH_VENV) dvc remote list)" ]; then $(WITH_VENV) dvc pull --run-cache --allow-missing || \
		echo "the remote did not answer: stages run anew" >&2; else echo "no DVC remote: stages run anew"; fi

test: $(STAMP) ## run the fast tests
	$(PYTEST) -n 2 --dist loadfile -m "not slow and not gpu"

test-all: $(STAMP) ## run every test that this machine can
	$(PYTEST) -n 2 --dist loadfile

lint: $(STAMP) ## check format, lint, types, and dvc.yaml against the code
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(BIN)/mypy pipeline
	$(WITH_VENV) python -m pipeline lint

ui: $(STAMP) ## open MLflow's page on localhost, up to date with the reports
	$(WITH_VENV) python -m pipeline track
	$(WITH_VENV) MLFLOW_DISABLE_TELEMETRY=true mlflow ui --host 127.0.0.1 --backend-store-uri \
		"$$($(BIN)/python -c 'from pipeline.params import load; print(load().tracking.uri)')"

install: $(STAMP) ## only set up .venv

lock: $(STAMP) ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --upgrade --quiet --custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove .venv and the caches of tools; data and reports stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock
	@sh .ci/install
