# `make demo` and `make test` set up all they need in .venv, once. `make demo DEMO=--serve` keeps the
# network, to be looked at in a browser.
PYTHON ?= python3
BIN := .venv/bin

WEB := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix web
STATIC := src/daitn/oam/static/index.html
WEB_CHECKED := web/node_modules/checked
# Hundreds of processes start from the same modules: they are compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long check types reference docs web clean
.DELETE_ON_ERROR:

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "DA-ITN needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[train,topologies,exact,dev]'
	@touch $@

# The dashboard. Node.js comes with the environment.
web: $(STATIC)

web/node_modules/installed: web/package.json web/package-lock.json .venv/installed
	$(WEB) ci --no-audit --no-fund --no-update-notifier --ignore-scripts
	@touch $@

$(STATIC): web/node_modules/installed $(shell find web -path web/node_modules -prune -o -type f -print) \
		$(wildcard src/daitn/oam/api/*.py)
	$(BIN)/python -m daitn.oam.api.openapi > web/openapi.json
	$(WEB) run types
	$(WEB) run build

demo: .venv/installed $(STATIC)
	$(BIN)/daitn demo -o out/demo $(DEMO)

# Fastest first, so that failures show early.
check: .venv/installed $(STATIC)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.reference --check
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types $(WEB_CHECKED)

types: .venv/installed
	$(BIN)/mypy

# Types and lint of the dashboard: whatever they depend on, the dashboard is built anew for.
$(WEB_CHECKED): $(STATIC)
	$(WEB) run check
	@touch $@

# The tables of docs/reference, from the types.
reference: .venv/installed
	$(BIN)/python -m scripts.reference

# The documentation as a site, in out/site. It fails where a link leads nowhere.
docs: .venv/installed
	$(BIN)/python -m scripts.site

# What needs the machine for itself comes after the rest, which shares the processors.
test: check
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
		-m 'not long and not alone'
	$(BIN)/python -m pytest -m 'alone and not long' tests/system

# Hours: comparisons, repetitions, searches at length. Everything else is in `make test`.
test-long: .venv/installed
	$(BIN)/python -m pytest -m long
	DAITN_THOROUGH=1 $(BIN)/python -m pytest -n logical -m 'not long and not processes' tests/steering tests/sim

clean:
	rm -rf .venv out build dist web/node_modules src/daitn/oam/static
