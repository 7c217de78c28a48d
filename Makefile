# Edgemask: `make` says what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
recipe ?= examples/driver-id/edgemask.toml
target ?= host
options ?=
faces := build/faces
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint .constraints.txt
LIGHT := --editable ./runtime[onnxruntime,litert,images,install] --editable .
ALL := --editable ./runtime[onnxruntime,litert,images,video,v4l2,grpc,mqtt,can,install] --editable .[dev]
HEAVY := .venv-heavy
HEAVY_ALL = --editable ./runtime[onnxruntime,litert,images,video,v4l2,install] --editable .[test,$(HEAVY_EXTRAS)]
HEAVY_EXTRAS = $*
# tritonclient wants an older one.
LOOSE_serving := ml_dtypes

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check board-test board-test-long board-story board-gates ci-heavy bench-compare build locks clean
.DELETE_ON_ERROR:

# `make target=jetson` builds; `make` alone helps.
ifeq ($(origin target),command line)
.DEFAULT_GOAL := build
endif

help:
	@echo "make demo              bake the example, build its bundle, run the daemon on real images"
	@echo "make test              install what the tests need and run them"
	@echo "make setup             $(VENV) with the light core: edgemask and edgemaskd"
	@echo "make target=host       build the example's bundle (recipe=PATH for another)"
	@echo "make target=raspberrypi, make target=jetson"
	@echo "                       the signed release for a board (options='--serial 2 --key NAME'); edgemask targets lists them"
	@echo "make check             ruff, mypy --strict and the tests"
	@echo "make test-long         the long form of the slow tests too"
	@echo "make board-test        flash, run, update and cut the power of an ARM board in QEMU (board-test-long: for longer)"
	@echo "make ci-heavy          the tests that need torch, tensorflow or peers, in $(HEAVY)/"
	@echo "make bench-compare     masks, a camera's frame and attacks beside ART, OpenCV, Pillow and more"
	@echo "make clean             remove build/, $(VENV) and $(HEAVY)"

setup: $(VENV)/light

$(VENV)/light: pyproject.toml runtime/pyproject.toml .constraints.txt | $(VENV)/pyvenv.cfg
	@echo "installing the light core into $(VENV)"
	@$(PIP) $(LIGHT)
	@touch $@

$(VENV)/all: pyproject.toml runtime/pyproject.toml .constraints.txt | $(VENV)/pyvenv.cfg
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) $(ALL)
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@ $(VENV)/light

$(VENV)/pyvenv.cfg:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is missing: sudo apt install python3 python3-venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or later is needed: sudo apt install python3.11 python3.11-venv, then make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: venv is missing: sudo apt install python3-venv"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(faces): | $(VENV)/light
	@$(BIN)/python examples/driver-id/faces.py --split test --out $@

demo: $(VENV)/light $(faces)
	@echo "== bake, verify and bundle $(recipe)"
	@$(BIN)/edgemask build examples/driver-id/edgemask.toml --target host --images $(faces)
	@echo "== run the daemon on 30 of 120 faces it was not trained on"
	@$(BIN)/edgemaskd run build/host/driver-id-host.edgemask --source $(faces) --max-frames 30 --fps 10 --listen 127.0.0.1:0 --format text
	@echo "== the bundle: build/host/driver-id-host.edgemask   the report: build/host/report.md"

build: $(VENV)/light
	@$(BIN)/edgemask build $(recipe) --target $(target) --out build/$(target) $(options)

test: $(VENV)/all
	@$(BIN)/python -m pytest -q -n auto -m "not slow and not heavy and not board"

test-long: $(VENV)/all
	@$(BIN)/python -m pytest -q -n auto -m "not heavy and not board"

check: $(VENV)/all
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -n auto -m "not slow and not heavy and not board"

# Two lanes at once, for the emulator leaves half of two cores idle: the board's own story, and all other tests.
board-test board-test-long: $(VENV)/all
	@tests/board/need.sh
	@$(MAKE) --no-print-directory --jobs=2 board-story board-gates board="$(board)"

board-test: board = board and not slow
board-test-long: board = board

board-story:
	@$(BIN)/python -m pytest -v -rs -s -m "$(board)" tests/board/test_device.py

board-gates:
	@$(BIN)/python -m pytest -v -rs -s -m "$(board)" tests/board --ignore tests/board/test_device.py

ci-heavy: $(HEAVY)/torch/all $(HEAVY)/audit/all $(HEAVY)/tensorflow/all $(HEAVY)/peers/all $(HEAVY)/serving/all
	@$(HEAVY)/torch/bin/python -m pytest -q -n auto -m "heavy and not audit and not tensorflow and not peers and not serving" tests/heavy
	@$(HEAVY)/audit/bin/python -m pytest -q -n auto -m audit tests/heavy
	@$(HEAVY)/tensorflow/bin/python -m pytest -q -n auto -m tensorflow tests/heavy
	@$(HEAVY)/peers/bin/python -m pytest -q -n auto -m peers tests/heavy
	@$(HEAVY)/serving/bin/python -m pytest -q -n auto -m serving tests/heavy

bench-compare: $(HEAVY)/peers/all $(HEAVY)/audit/all
	@$(HEAVY)/peers/bin/python -m benchmarks.masks
	@$(HEAVY)/peers/bin/python -m benchmarks.camera
	@$(HEAVY)/peers/bin/python -m benchmarks.sources
	@$(HEAVY)/audit/bin/python -m benchmarks.attacks

$(HEAVY)/audit/all: HEAVY_EXTRAS = audit,ray,art,tensorflow
$(HEAVY)/%/all: pyproject.toml runtime/pyproject.toml .constraints.txt .constraints-heavy.txt
	@echo "installing what the heavy tests need of $* into $(HEAVY)/$*"
	@$(PYTHON) -m venv $(HEAVY)/$*
	@grep -v '^$(or $(LOOSE_$*),none)==' .constraints.txt >$(HEAVY)/$*/constraints.txt
	@$(HEAVY)/$*/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(HEAVY)/$*/constraints.txt --constraint .constraints-heavy.txt $(HEAVY_ALL)
	@touch $@

# For who maintains Edgemask: what releases hold, from .constraints.txt and targets/wheels/pins.txt.
locks: $(VENV)/light
	@$(BIN)/python -m edgemask.wheels.locking

clean:
	rm -rf build $(VENV) $(HEAVY)
