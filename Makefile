# What a person types. `make up` and `make test` install what they need first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
ARGS   ?=
# Of make test: a third of their time, tests wait for what they started.
WORKERS ?= 3
# Of make torture: the same seed tries the same things again; as many restores, scrubs and histories of merges as seconds.
SEED            ?= $(shell date +%s)
TORTURE_SECONDS ?= 300

.PHONY: install up test lint format lock audit bench torture docs-screenshots clean

install: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	$(BIN)/python -m compileall -q depot_api depot_ops
	touch $@

up: $(READY)
	exec $(BIN)/depot-ops up $(ARGS)

test: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m bench $(ARGS)

torture: $(READY)
	SEED=$(SEED) TORTURE_SECONDS=$(TORTURE_SECONDS) $(BIN)/pytest -s tests/torture $(ARGS)
	SEED=$(SEED) RESTORE_SEEDS=$(TORTURE_SECONDS) RESTORE_KILLS=20 $(BIN)/pytest tests/depot_ops/postgres/recovery \
	  tests/depot_ops/postgres/dump/test_restore.py \
	  -k 'random or kill_9'
	SEED=$(SEED) COPY_SEEDS=$(TORTURE_SECONDS) $(BIN)/pytest tests/depot_ops/copies \
	  tests/depot_ops/postgres/recovery/test_from_copy.py -k 'killed or random'
	FAILOVERS=1 $(BIN)/pytest tests/depot_ops/replicas/test_after_failover.py
	TORTURE_SECONDS=$(TORTURE_SECONDS) $(BIN)/pytest tests/deploy tests/docs tests/depot_ops/replicas/test_scenarios.py \
	  tests/depot_ops/replicas/test_daemon.py tests/depot_ops/replicas/test_patroni.py \
	  tests/depot_ops/postgres/recovery/test_stream.py
	MERGE_HISTORIES=$(TORTURE_SECONDS) $(BIN)/pytest --hypothesis-seed=$(SEED) tests/depot_api/merges/test_model.py
	COLLECTOR_SEEDS=$(TORTURE_SECONDS) $(BIN)/pytest tests/depot_api/collection -k racing
	SEED=$(SEED) SCRUB_SEEDS=$(TORTURE_SECONDS) STORAGE_FAULTS=all $(BIN)/pytest tests/depot_ops/blobs \
	  -k 'all_damage or whatever_call'

# Beside a stack with a standby that runs; needs Debian's chromium. ARGS=--work first does what the pictures show.
docs-screenshots: $(READY)
	$(BIN)/python docs/screenshots.py $(ARGS)

# Needs uv, which only whoever changes a dependency has to have.
lock:
	uv pip compile pyproject.toml --extra embedded --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-strip-extras -o requirements.lock $(ARGS)
	uv pip compile pyproject.toml --extra embedded --extra build --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-strip-extras -c requirements.lock -o deploy/requirements.lock
	echo 'patroni[psycopg3,raft]' | uv pip compile - --python-version 3.11 --python-platform linux --generate-hashes \
	  --no-annotate --no-header --no-strip-extras -c requirements.lock -o deploy/patroni/requirements.lock

# What is known against the versions in the locks.
audit: $(READY)
	$(BIN)/python deploy/audit.py requirements.lock deploy/requirements.lock deploy/patroni/requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
