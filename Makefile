# make run    train what is missing, prove it, serve it on 127.0.0.1:8001
# make test   everything that a change must pass
# make test-slow  the tests that take long: fuzz, Ray, comparisons with other servers, browsers
# make test-grpcio    those that talk to a server, on the reference transport
# make test-serving   the serving tests, in an environment without torch; TRANSPORT=grpcio: on the reference transport
# make test-interop   the tests with other people's clients, KServe's and Node's among them
# make test-containers   both images, the compose project and every file below deploy/
# make check  linter, types, generated code
# make protos regenerate service/pb from protos/
# make fuzz   ten minutes of a coverage-guided fuzzer on an HTTP/2 connection
# make results    trains what docs/results.md tells of and has no result yet, and makes its tables and pictures
# make bench  this server beside others, on this machine
# make bench-all   the other measurements behind the figures in the documentation, too

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# A file's tests stay together, and with them what they start once for all of them.
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
PROTOS := open_inference health training
NODE   := tests/interop/node
FUZZ_S ?= 600
TRANSPORT ?= http2

.PHONY: run test test-slow test-grpcio test-serving test-interop interop-clients test-containers check format protos fuzz results bench bench-all clean

run: $(VENV)/.installed
	$(BIN)/mnist1d up

# One stamp, so that a second `make run` starts at once; constraints.txt is what CI proved.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV) || { echo "Python has no venv module here; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[serve,train]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test --group lint
	touch $@

test: $(VENV)/.installed-dev
	MNIST1D_SUITE="make test" $(BIN)/python $(PYTEST) -m 'not slow'

test-slow: $(VENV)/.installed-dev
	MNIST1D_SUITE="make test-slow" $(BIN)/python $(PYTEST) -m slow

# The tests that talk to a server, on the reference transport.
test-grpcio: $(VENV)/.installed-dev
	$(BIN)/python $(PYTEST) --transport grpcio tests/service tests/integration tests/interop

# The serving tests where there is neither torch nor numba nor scipy, as in a serving image.
test-serving: $(VENV)-serving/.installed
	$(VENV)-serving/bin/python -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(m) for m in ("torch", "scipy", "numba", "onnxscript")))'
	MNIST1D_SUITE="make test-serving" $(VENV)-serving/bin/python $(PYTEST) --transport $(TRANSPORT) -m 'not needs_torch and not slow' tests/service tests/integration tests/interop tests/test_architecture.py

$(VENV)-serving/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-serving
	$(VENV)-serving/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-serving/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[serve]' --group test-serving
	touch $@

# Clients that are no part of the test group: KServe's needs other versions of everything, Node's comes from npm.
# Without them `make test` skips their tests.
test-interop: $(VENV)/.installed-dev interop-clients
	$(BIN)/python -m pytest tests/interop

interop-clients: $(VENV)-kserve/.installed
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NODE)/node_modules/.package-lock.json; \
	  else echo "no npm here: the tests with Node's client will be skipped" >&2; fi

$(VENV)-kserve/.installed: tests/interop/kserve-requirements.txt
	$(PYTHON) -m venv $(VENV)-kserve
	$(VENV)-kserve/bin/python -m pip install --quiet --requirement $<
	touch $@

$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json
	cd $(NODE) && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

# Without an engine for containers only the files are checked, and the rest is skipped with the reason.
test-containers: $(VENV)/.installed-containers
	MNIST1D_SUITE="make test-containers" MNIST1D_TEST_CONTAINERS=1 $(BIN)/python -m pytest tests/containers

$(VENV)/.installed-containers: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group containers
	touch $@

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_protos.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Messages go through a descriptor set into a pool of their own (service/pb/__init__.py); their types for mypy are
# ordinary generated code, and so are the stubs, which only tests and benchmarks use. The virtual path makes protoc write
# `from service.pb import ...`.
protos: $(VENV)/.installed-dev
	@for name in $(PROTOS); do \
	  $(BIN)/python -m grpc_tools.protoc -Iprotos --include_imports --descriptor_set_out=service/pb/$$name.binpb protos/$$name.proto && \
	  printf '"""Messages of protos/%s.proto; see service/pb/__init__.py."""\n\nfrom . import load\n\nglobals().update(load("%s"))\n' $$name $$name \
	    > service/pb/$${name}_pb2.py || exit 1; \
	done
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iservice/pb=protos -Iprotos \
	  --mypy_out=quiet:. --grpc_python_out=. $(PROTOS:%=service/pb/%.proto)
	mkdir -p tests/stubs && mv service/pb/*_pb2_grpc.py tests/stubs/

# FUZZ_S says for how many seconds.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group fuzz
	$(BIN)/python -m tests.fuzz.fuzz_connection -max_total_time=$(FUZZ_S) -rss_limit_mb=512 -timeout=10

# JOBS says how many trials at a time; all cores are busy for a quarter of an hour or more.
results: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.reproduction $(if $(JOBS),--jobs $(JOBS))

# Makes what others need (.venv-bench-*, a compiled echo where Debian's libgrpc++-dev is) on the first call.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.comparison

bench-all: bench
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/serving_footprint.py
	$(BIN)/python benchmarks/export_lowering.py
	$(BIN)/python benchmarks/session_options.py
	$(BIN)/python benchmarks/rolling_restart.py
	$(BIN)/python benchmarks/generator_rate.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/training_durability.py
	$(BIN)/python benchmarks/training_beside_serving.py

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[serve,train,bench]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-serving $(VENV)-kserve .venv-bench-* $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
