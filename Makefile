# Every target sets up what it needs: a virtual environment with pinned packages. No root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= .demo

.PHONY: demo test test-all lint verify clean

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

# torch comes first and by its exact version: other ways of asking for it fetch several GB of CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
