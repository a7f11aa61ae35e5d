# Every verb sets up what it needs first (system programs, .venv, kernels); with nothing to do that takes under a second.
# Pass more words with ARGS:  make test ARGS="tests/edge -k outbox"    make demo ARGS="--for 60 --report report.json"

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench docs wheel lock fuzz sanitize ready-demo
VENV := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make this machine ready: system programs, .venv from the lock, compiled kernels, the icecap command
	@sh scripts/python.sh scripts/setup.py test

ready-demo:
	@sh scripts/python.sh scripts/setup.py demo

demo: ready-demo ## coolers, gateways, brokers, cloud and console on this machine, at 60 times real speed
	@$(VENV)/icecap demo $(ARGS)

test: setup ## all tests, against real services
	@$(VENV)/python -m pytest -n 3 --dist loadfile $(ARGS)

check: setup ## format, lint, types, import contracts, house rules: what a change must pass
	@$(VENV)/python scripts/check.py

bench: setup ## measure the kernels beside the peers that are installed; ARGS chooses one: codec, smooth, lineproto
	@for kernel in $(or $(firstword $(ARGS)),codec smooth lineproto); do $(VENV)/icecap bench $$kernel $(wordlist 2,99,$(ARGS)) || exit 1; done

docs: setup ## rebuild the generated tables of docs/
	@$(VENV)/python scripts/docs.py

wheel: setup ## sdist and wheel with compiled kernels into dist/
	@$(VENV)/python -c "from setuptools import build_meta as backend; backend.build_sdist('dist'); backend.build_wheel('dist')"

fuzz: ## fuzz every decoder for ARGS seconds in all (60), with AddressSanitizer
	@sh scripts/python.sh scripts/setup.py fuzz
	@sh scripts/fuzz.sh $(or $(ARGS),60)

sanitize: setup ## the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@sh scripts/sanitize.sh $(ARGS)

lock: setup ## resolve the dependencies again and write requirements/*.txt
	@sh scripts/lock.sh
