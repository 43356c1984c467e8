# Everything works on a bare clone with python3 (>= 3.11), a C compiler and make: the first target
# that needs it creates .venv and builds the extensions; later calls start at once.
#
#   make train [ENV=cartpole] [ARGS="--seed 2"]   train and evaluate, with a live dashboard
#   make test [ARGS="-k core"]                    all tests, in the release and the checked build
#   make lint                                     formatters, type checks, stub checks
#   make bench | make bench-compare BASE=HEAD~1   the pyperf suite; against another revision
#   make debug                                    the checked build, in build/checked
#   make sanitize                                 core tests under address, undefined, thread
#   make wheel                                    a wheel in dist/

PYTHON ?= python3
ENV ?= cartpole
ARGS ?=
BIN := .venv/bin
SOURCES := $(wildcard pufferlib_cy/*.pyx pufferlib_cy/*.pxd pufferlib_cy/*.h pufferlib_cy/*/*.pyx)

.PHONY: help setup train test test-release test-checked lint bench bench-compare debug sanitize wheel clean

setup: .venv/built

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools wheel cython numpy
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[train,render,sb3,dev,zoo]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --only-binary :all: pufferlib-core \
	  || echo "pufferlib-core has no wheel for this Python: tests/test_parity.py will be skipped"
	touch $@ .venv/built

# Directives and flags live in build.py: when it changes, everything is translated again.
.venv/built: .venv/installed setup.py pufferlib_cy/build.py $(SOURCES)
	test -z "$(filter pufferlib_cy/build.py,$?)" || rm -rf build/release-c
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	touch $@

train: setup
	$(BIN)/puffer-cy train $(ENV) $(ARGS)

test: test-release test-checked

test-release: setup
	$(BIN)/pytest $(ARGS)

# Variants stand beside the release build, each a copy of the package with its own extensions.
PACKAGE := $(wildcard pufferlib_cy/*.py* pufferlib_cy/*.h pufferlib_cy/*/*.py* pufferlib_cy/*/*.toml)
BUILD = $(BIN)/python setup.py --quiet build --parallel 2 --build-base build/$(1)-objects --build-lib build/$(1)

debug: build/checked/.built
build/checked/.built: .venv/built $(PACKAGE)
	PUFFERLIB_CY_CHECKED=1 $(call BUILD,checked)
	touch $@

# The tests of what is compiled; the others do not come to other results in it.
CORE_TESTS := tests/test_core.py tests/test_vector.py tests/test_spaces.py tests/envs
test-checked: build/checked/.built
	PYTHONPATH=build/checked $(BIN)/pytest $(CORE_TESTS) $(ARGS)

# The sanitizers' runtimes come with the compiler and have to be loaded before Python's own code.
# Python itself leaks by design at exit, so that leaks are not looked for.
RUNTIME = LD_PRELOAD="$(foreach lib,$(1),$(shell $(CC) -print-file-name=lib$(lib).so))"

sanitize: build/address/.built build/thread/.built
	$(call RUNTIME,asan ubsan) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  PYTHONMALLOC=malloc PYTHONPATH=build/address CFLAGS="$(SANITIZE_address)" $(BIN)/pytest --capture=sys $(CORE_TESTS) $(ARGS)
	$(call RUNTIME,tsan) TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
	  PYTHONPATH=build/thread CFLAGS="$(SANITIZE_thread)" setarch -R $(BIN)/pytest --capture=sys $(CORE_TESTS) $(ARGS)

SANITIZE_address := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZE_thread := -fsanitize=thread -fno-omit-frame-pointer
build/address/.built build/thread/.built: build/%/.built: .venv/built $(PACKAGE)
	CFLAGS="$(SANITIZE_$*)" LDFLAGS="$(SANITIZE_$*)" $(call BUILD,$*)
	touch $@

lint: setup
	$(BIN)/ruff check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint pufferlib_cy tests examples
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-missing-stub --ignore-disjoint-bases pufferlib_cy._core pufferlib_cy._engine pufferlib_cy._actions pufferlib_cy._advantages pufferlib_cy._spaces pufferlib_cy.envs

bench: setup
	mkdir -p build
	$(BIN)/python perf/run.py -o build/bench.json $(ARGS)

bench-compare: setup
	$(BIN)/python perf/compare.py $(BASE) $(ARGS)

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf build dist .venv pufferlib_cy/*.so pufferlib_cy/*/*.so
