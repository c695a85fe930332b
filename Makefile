# Everything runs in .venv, which both targets make on first use; each can be repeated at any time.
PY := .venv/bin/python
INSTALL := PYTHON=$(PY) tools/install.sh

.PHONY: demo test test-long lint format clean-venv
.DEFAULT_GOAL := help

help:
	@echo "make demo       see a RegNet detector learn on embedded data (10 minutes on 2 CPU cores)"
	@echo "make test       install every framework and run the tests"
	@echo "make test-long  the checks that take longer"
	@echo "make lint       check style; make format rewrites"

$(PY):
	@echo "[make] making .venv"
	python3 -m venv .venv

# A stamp says that a set of parts was installed whole; it is older than what it was made from after a change.
.venv/.demo: pyproject.toml tools/install.sh | $(PY)
	$(INSTALL) core detectron2
	@touch $@

.venv/.test: pyproject.toml tools/install.sh | $(PY)
	$(INSTALL) core detectron2 openmmlab peers dev
	@touch $@ .venv/.demo

demo: .venv/.demo
	$(PY) tools/demo.py

test: .venv/.test
	$(PY) -m pytest -m "not long" tests

test-long: .venv/.test
	$(PY) -m pytest -m long tests

lint: .venv/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: .venv/.test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean-venv:
	rm -rf .venv
