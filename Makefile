# make train: the whole pipeline on drawn posters, from nothing.   make train ARGS="--csv MovieGenre.csv": on yours.
# make app: the page and the API, on the model that was trained.   make app ARGS="--share": with a public link.
# make test: every quick test.   make test-all: the slow proofs too.   make lint: ruff and the import rules.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.installed

.PHONY: train app test test-all lint lock pictures clean

train: $(READY)
	$(BIN)/python train_model.py $(ARGS)

app: $(READY)
	$(BIN)/python app_gradio.py $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports

# The exact versions that were tested, for Python 3.10 to 3.13 on every system.
lock: $(READY)
	$(BIN)/python -m uv pip compile pyproject.toml --extra train --extra serve --extra dev --universal --python-version 3.10 \
		--upgrade --no-annotate --no-header --no-emit-index-url -o requirements.lock

# Written last: an installation that was cut off is done again, a finished one is not.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; name another: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	@$(BIN)/python -c 'import pathlib; pathlib.Path("$(READY)").touch()'

pictures: $(READY)
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) models/sample data/sample
