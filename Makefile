# make run    set up everything and run the daemon on an embedded store
# make demo   a private Postfix, a sample blocklist and the daemon: see the whole thing work, then all is ended
# make lab    a small internet to play in: three MX hosts, Redis under Sentinel, lists, clients; until Ctrl-C
# make test   the tests, on real servers that they start and end themselves; WORKERS=0 one after the other
# make unit   those of them that start no server and no program, in 20 seconds; laws on a quarter of the examples
# make test-faults   stores, nameservers and processes that fail under load; FAULTS_LONG=1 as long as in life
# make fuzz   hostile input to every parser; FUZZ="--inputs 1000000 --seed 1 TARGET" selects,
#             FUZZ="--engine atheris --seconds 600" is guided by coverage
# make bench  what a decision costs and what clients wait for, as tables; BENCH="direct --full" selects
# make simulate   what greylisting, lists and our defaults do to a month of mail, as tables;
#             SIMULATE="--sweep" shows how much hangs on each number of the world
# make dist           source archive, wheel and Debian package, in dist/
# make package        a Debian package of this tree, in dist/; MAINTAINER="Name <address>" answers for it
# make screenshot     the picture of the page in the guides, from a real run
# make package-test   all of them in clean machines: with systemd, without, upgraded, removed
# make check  style and types
# make man    renew the man page of the commands from the program's help

PYTHON := .venv/bin/python
STATE  ?= $(CURDIR)/.work/state
PYTEST_ARGS ?=
# Tests wait for servers most of the time, so two run for each CPU, and four at most
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
BENCH ?=
SIMULATE ?=
FUZZ ?=

.PHONY: help setup setup-run setup-check setup-demo setup-lab setup-package run demo lab test unit test-faults fuzz bench \
    simulate dist package package-test screenshot check man format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

setup-run:
	@contrib/setup/packages run
	@contrib/setup/venv run
	@contrib/setup/page run

setup-check: setup-run
	@contrib/setup/venv test

setup-demo:
	@contrib/setup/packages demo
	@contrib/setup/venv demo

setup-lab:
	@contrib/setup/packages lab
	@contrib/setup/venv run
	@contrib/setup/page run
	@contrib/setup/sendmail

setup:
	@contrib/setup/packages test
	@contrib/setup/venv test
	@contrib/setup/page test
	@contrib/setup/sendmail

run: setup-run
	@STATE=$(STATE) contrib/setup/run

demo: setup-demo
	@$(PYTHON) contrib/demo/demo.py

lab: setup-lab
	@$(PYTHON) contrib/lab/serve.py

test: setup
	@[ ! -s .work/second-try ] || { echo 'Needed a second try last time (.ci/run):'; cat .work/second-try; }
	@$(PYTHON) -m pytest -n $(WORKERS) --maxprocesses 4 --no-loadscope-reorder $(PYTEST_ARGS)

unit: setup-check
	@$(PYTHON) -m pytest --unit -q $(PYTEST_ARGS)

test-faults: setup
	@$(PYTHON) -m pytest -o python_files='fault_*.py' tests/faults $(PYTEST_ARGS)

fuzz: setup
	@case '$(FUZZ)' in *atheris*) $(PYTHON) -c 'import atheris' 2>/dev/null || \
	    $(PYTHON) -m pip -qq --disable-pip-version-check install --editable '.[fuzz]' ;; esac
	@PYTHONPATH=tests $(PYTHON) -m fuzz $(FUZZ)

bench: setup
	@$(PYTHON) -c 'import pytest_benchmark' 2>/dev/null || \
	    $(PYTHON) -m pip -qq --disable-pip-version-check install --editable '.[bench]'
	@PYTHONPATH=tests $(PYTHON) -m bench $(BENCH)

simulate: setup-run
	@PYTHONPATH=tests $(PYTHON) -m simulate $(SIMULATE)

dist: package
	@contrib/dist/build

screenshot: setup
	@$(PYTHON) contrib/page/screenshot.py

setup-package:
	@contrib/setup/packages package
	@contrib/setup/page run

package: setup-package
	@contrib/debian/build

package-test: setup
	@$(PYTHON) -m pytest tests/install/test_debian.py tests/install/test_dist.py tests/install/test_init.py $(PYTEST_ARGS)

check: setup-check
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@MYPYPATH=tests:contrib/lab .venv/bin/mypy contrib/lab/serve.py tests/parts tests/bench tests/simulate contrib/demo/demo.py contrib/page/fetch.py contrib/page/screenshot.py

man: setup-run
	@$(PYTHON) contrib/man/generate.py >contrib/man/hybridgrey.8

format: setup-check
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

# Leaves .work/state: it holds the triplets of `make run`.
clean:
	rm -rf .venv .work/sendmail .work/cleanroot .work/page milter/hybridgrey/page/static/vendor build dist milter/*.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find milter tests contrib -name __pycache__ -type d -prune -exec rm -rf {} +
