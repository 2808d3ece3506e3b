.DEFAULT_GOAL := help
BIN := .venv/bin
CHROMIUM := .ci/debian chromium "chromium chromium-browser" "the tests of the page"
HAPROXY := .ci/debian haproxy haproxy "the tests of replicas"

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Set up .venv with the CPU engine, the trainer and the development tools
	@.ci/install

demo: install ## Evolve the embedded model over two rounds under live traffic (five to ten minutes)
	@$(BIN)/python -m trainer.demo.run

demo-thinking: install ## Evolve the thinking model over one round under live traffic (under twenty minutes)
	@$(BIN)/python -m trainer.demo.run --model thinking --run runs/demo-thinking

demo-seeds: install ## The demo with three trainer seeds; prints the median gain (up to half an hour)
	@$(BIN)/python -m tests.benchmarks.seeds

replicas: install ## Three replicas behind HAProxy follow promotions and a rollback under traffic (three minutes)
	@$(HAPROXY)
	@$(BIN)/python -m tests.benchmarks.replicas.scenario

soak: install ## Ten minutes of photographs and promotions in the memory of k8s/overlays/cpu; runs/soak.json
	@$(BIN)/python -m tests.benchmarks.soak

ablations: install ## The paper's ablations on the embedded model, three seeds each; runs/ablations (over an hour)
	@$(BIN)/python -m tests.benchmarks.ablations

serve: install ## Serve the embedded model on port 8000
	@$(BIN)/evoquality serve --checkpoint trainer/demo/checkpoint

test: install ## Run all tests, the real engine's included
	@.ci/checkov
	@$(CHROMIUM)
	@$(HAPROXY)
	@.ci/debian nginx-light nginx "the tests of a path prefix"
	@.ci/debian iproute2 ip "the tests that run the manifests' pods"
	@$(BIN)/python -m pytest -n 2

test-quick: install ## Run the tests that need neither the engine nor other processes (a minute)
	@$(BIN)/python -m pytest -m "not engine and not slow" -n 2

screenshot: install ## Photograph the page of the real service for the README
	@$(CHROMIUM)
	@$(BIN)/python -m tests.benchmarks.screenshot

lint: install ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: install ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

openapi: reference ## Write the OpenAPI documents, service/openapi*.json, from the code

reference: install ## Write service/REFERENCE.md, the OpenAPI documents and the trainer's exit codes from the code
	@$(BIN)/python -m tests.reference

alerts: install ## Write the cluster's alert rules from docker/monitoring/alerts.yaml
	@$(BIN)/python -m tests.deployment.rules

leaderboard: install ## Copy the last demo's figures into tests/benchmarks/results
	@$(BIN)/python -m tests.benchmarks.leaderboard

tables: install ## Write the tables of all READMEs, and the plot of the demo, from tests/benchmarks/results
	@$(BIN)/python -m tests.benchmarks.tables

bench: bench-serve bench-train ## All benchmarks: ratios against named baselines (20 minutes)

bench-serve: install ## The service against vLLM directly and vLLM's own server (10 minutes); runs/bench/serve.json
	@$(BIN)/python -m tests.benchmarks.serving

bench-train: install ## The trainer against a repeated prefix and TRL (10 minutes; installs TRL); runs/bench/train.json
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e ".[bench]"
	@$(BIN)/python -m tests.benchmarks.train

bench-scale: install ## Memory, bfloat16 and thinking at the sizes of real models; runs/bench/scale.json
	@$(BIN)/python -m tests.benchmarks.scale

images: install ## Build the CPU images from Debian's packages and try them (root, buildah; twelve minutes); runs/images
	@$(BIN)/python -m tests.deployment.images

checkpoint: install ## Make the embedded checkpoint again from nothing (about an hour)
	@$(BIN)/python -m tests.benchmarks.checkpoint.recipe

checkpoint-thinking: install ## Tune the embedded checkpoint into the thinking one again (about fifteen minutes)
	@$(BIN)/python -m tests.benchmarks.checkpoint.thinking

.PHONY: help install demo demo-thinking demo-seeds replicas soak ablations serve test test-quick screenshot lint format openapi reference alerts leaderboard tables bench bench-serve bench-train bench-scale checkpoint checkpoint-thinking images
