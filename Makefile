# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
RUN := .venv/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
DOCS := $(shell grep '^mkdocs-material==' constraints.txt)
TORCH := $(shell grep '^torch==' constraints.txt)

# Idle OpenMP threads that wait busily starve every other process.
export OMP_WAIT_POLICY := passive

SERVER := SlicerRetReg/Resources/Server

OHIF := ohif-app-3.13.2
.PHONY: help demo test test-viewers viewers lint docs gallery screenshots layers wheel lock clean

help:
	@echo "make demo   register a fundus pair and a brain pair; pictures come into demo-out/"
	@echo "make test   run the linters and every test"
	@echo "make test-viewers  test a TypeScript client, the page and OHIF (need npm) in a browser"
	@echo "make viewers fetch what those tests need (npm); make test then runs them, too"
	@echo "make lint   run the linters only"
	@echo "make docs   make a web site of docs/ in site/; nothing outside is asked"
	@echo "make gallery draw the pictures of the front page and of the gallery anew"
	@echo "make screenshots  draw the pictures of the Slicer module in docs/images anew"
	@echo "make layers draw the structure in docs/images anew, from the imports"
	@echo "make wheel  build the server's wheel into $(SERVER), for the Slicer module"
	@echo "make lock   renew the versions and hashes that the module installs with that wheel"
	@echo "make clean  remove .venv and everything that was made"

demo: .venv/installed
	$(RUN) -m retreg.cli demo --out demo-out

test: lint
	$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-viewers: .venv/installed-test viewers
	$(RUN) -m pytest tests/serving/test_answers.py tests/look

viewers:
	mkdir -p build/typescript && cp tests/serving/typescript/package*.json build/typescript
	npm ci --prefix build/typescript --no-audit --no-fund
	test -f build/$(OHIF).tgz || npm pack --silent --pack-destination build @ohif/app@3.13.2
	cd build && sha512sum --quiet --check ../tests/look/ohif.sha512
	test -f build/ohif/package/dist/index.html || (mkdir -p build/ohif && tar -xzf build/$(OHIF).tgz -C build/ohif)

lint: .venv/installed-test
	$(RUN) -m ruff check
	$(RUN) -m mypy

docs: .venv/installed-docs
	$(RUN) -m mkdocs build --strict --quiet
	@echo "Open site/index.html in a browser."

gallery: .venv/installed
	$(RUN) docs/draw_gallery.py

screenshots: .venv/installed-test
	$(RUN) tests/slicer/resources.py
	$(RUN) tests/slicer/screenshots.py

layers: .venv/installed-test
	$(RUN) docs/draw_layers.py

wheel: .venv/created
	rm -f $(SERVER)/*.whl
	$(PIP) wheel --no-deps --wheel-dir $(SERVER) .

lock: .venv/installed-test
	$(RUN) -m uv pip compile pyproject.toml -c constraints.txt --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -o $(SERVER)/requirements.txt

clean:
	rm -rf .venv demo-out evaluation-out site dist build .pytest_cache .mypy_cache .ruff_cache
	find SlicerRetReg server tests -name __pycache__ -prune -exec rm -rf {} +

# torch comes first and by its exact version, so that pip never has to choose among its builds.
.venv/installed: .venv/created pyproject.toml constraints.txt
	$(PIP) install $(TORCH)
	$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) install -c constraints.txt -e ".[test,docs]"
	$(PIP) install --no-deps monailabel==0.8.5  # its client is tested; its dependencies are not wanted
	@touch $@

.venv/installed-docs: .venv/created pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt $(DOCS)
	@touch $@

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, which $(PYTHON) is not; try: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv .venv || { \
	  echo "$(PYTHON) cannot create .venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@
