# The front door. Every target works from a clean clone; `make help` lists them.

PYTHON ?= python3
PORT ?= 8080
# Where `make run` keeps its database, its key and its log; git ignores it.
DATA_DIR ?= data
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

export CARGO

.PHONY: help run build test clients real mutate bench check fmt clean assets tools
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: build ## start the gate on 127.0.0.1:8080 (PORT=…), judge the sample pictures, stay up until Ctrl-C
	@exec $(PYTHON) -B service/samples/run.py "$(TARGET)/release/shieldgate" "$(DATA_DIR)" "$(PORT)"

build: assets ## fetch ONNX Runtime, Postgres and the models; build target/release/shieldgate
	$(CARGO) build --release --locked --workspace

test: build clients ## all tests, against throw-away Postgres clusters (CLIENTS=no: without OpenAI's clients)
	$(CARGO) test --release --locked --workspace --no-run
	@exec "$(TARGET)/release/examples/with_postgres" $(CARGO) test --release --locked --workspace

real: build ## GGUF against the real Gemma 3 270M: GEMMA=folder with its .gguf and tokenizer.json
	@test -d "$(GEMMA)" || { echo "error: GEMMA names no folder"; echo "  hint: make real GEMMA=FOLDER"; exit 1; } >&2
	SHIELDGATE_GEMMA="$(abspath $(GEMMA))" $(CARGO) test --release --locked -p shieldgate-models --test gguf real -- --ignored --nocapture

mutate: build ## five thousand broken pictures over HTTP, and a million through the decoders
	$(CARGO) test --release --locked --workspace --no-run
	SHIELDGATE_MUTATIONS=5000 "$(TARGET)/release/examples/with_postgres" $(CARGO) test --release --locked -p shieldgate-tests --test faults mutated -- --nocapture
	SHIELDGATE_MUTATIONS=1000000 $(CARGO) test --release --locked -p shieldgate --test media mutated -- --nocapture

bench: build ## benchmarks as ratios within one run, on a quiet machine (eight minutes)
	"$(TARGET)/release/shieldgate-load" bench --json "$(TARGET)/bench.json"

check: ## formatting, lints, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check bans licenses sources; else echo "cargo-deny is not installed: licences not checked" >&2; fi

fmt: ## format the code
	$(CARGO) fmt --all

clean: ## delete what was built and fetched; the data of `make run` stays
	$(CARGO) clean

assets: tools
	@$(PYTHON) -B service/assets/fetch.py "$(TARGET)/assets"

# OpenAI's official Python and Node clients, for tests/tests/clients.rs.
clients: tools
	@$(PYTHON) -B tests/clients/prepare.py "$(TARGET)/clients"

tools:
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no $(PYTHON)"; echo "  hint: apt-get install python3 python3-pip"; exit 1; } >&2
	@$(PYTHON) -B service/assets/toolchain.py
