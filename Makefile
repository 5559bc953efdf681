# Every target sets up what it needs: a virtual environment with pinned packages. No root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= .demo
# Waymo's own code wants Python 3.11 and versions that do not go with ours, so it has an environment of its own.
ORACLE_PYTHON ?= $(firstword $(shell command -v python3.11) $(PYTHON))
ORACLE := .venv-oracle
ORACLE_STAMP := $(ORACLE)/.installed

.PHONY: demo test test-all lint verify oracle parity clean

demo: $(STAMP)
	$(BIN)/limtr demo --out $(DEMO) $(if $(QUICK),--quick)

test: $(STAMP)
	$(BIN)/python -m pytest

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Conformance with every golden file that the repository carries.
verify: $(STAMP)
	$(BIN)/limtr verify lidar --scenario tests/golden/lidar/synthetic_womd_lidar.tfrecord \
	  tests/golden/lidar/synthetic_womd_lidar_points_golden.npz
	$(BIN)/limtr verify crops --scenario tests/golden/lidar/crops_golden.tfrecord tests/golden/lidar/crops_golden.npz
	$(BIN)/limtr verify metrics tests/golden/metrics/waymo_metrics_golden.npz tests/golden/metrics/waymo_metrics_golden.json
	for golden in mtr_a limtr_a limtr_double_pointnet; do \
	  $(BIN)/limtr verify model tests/golden/reference/$$golden.npz || exit 1; done

# Waymo's metrics op and decoders, as judges in a process of their own (2.8 GB, some minutes).
oracle: $(ORACLE_STAMP)

# Our metrics, LiDAR and protos against Waymo's own code, on the predictions of the quick demo.
parity: $(STAMP) $(ORACLE_STAMP)
	test -d $(DEMO)/quick/run || $(MAKE) demo QUICK=1
	$(BIN)/limtr verify --official tests/golden/lidar/synthetic_womd_lidar.tfrecord tests/golden/lidar/crops_golden.tfrecord
	for split in validation train; do \
	  $(BIN)/limtr predict --checkpoint $(DEMO)/quick/run --input $(DEMO)/quick/shards --split $$split \
	    --out $(DEMO)/quick/$$split.parquet || exit 1; \
	  for bucketing in 2024 2021; do \
	    $(BIN)/limtr evaluate --predictions $(DEMO)/quick/$$split.parquet --data $(DEMO)/quick/shards --split $$split \
	      --official --bucketing $$bucketing --out $(DEMO)/quick/parity-$$split-$$bucketing || exit 1; done; done

# torch comes first and by its exact version: other ways of asking for it fetch several GB of CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

$(ORACLE_STAMP): constraints-oracle.txt
	@$(ORACLE_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "make oracle: Waymo's package needs Python 3.11, $(ORACLE_PYTHON) is another; name one: make oracle ORACLE_PYTHON=..."; \
	  exit 1; }
	$(ORACLE_PYTHON) -m venv --clear $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet -c constraints-oracle.txt waymo-open-dataset-tf-2-12-0==1.6.7
	touch $(ORACLE_STAMP)

clean:
	rm -rf $(VENV) $(ORACLE) $(DEMO) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
