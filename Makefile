PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo bench bench-gpu bench-light gpu gpu-tiny gpu-wheels check-compressors check-prediction check-intervals check-resume study study-cheaper study-cheaper-costs study-costs test test-slow test-gpu lint clean

help:  ## Show what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Create .venv and install everything; done once.

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python >= 3.11 is needed, $(PYTHON) is older or missing. Try: make PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	# Its pins are older than anything else here can use, so without its dependencies.
	$(BIN)/pip install --quiet --no-deps summac==0.0.4
	# Apart: where peft finds it, every process takes twice as long to start.
	$(BIN)/pip install --quiet --no-deps --target .venv/bitsandbytes 'bitsandbytes>=0.49,<1'
	touch $@

demo: $(INSTALLED)  ## Fine-tune the embedded model on the embedded task and show the report.
	$(BIN)/harness run
	$(BIN)/harness report results/

BENCH ?= results/benchmarks
bench: $(INSTALLED)  ## Compare with Seq2SeqTrainer + PEFT; write docs/performance.md. An hour and more.
	$(BIN)/python benchmarks/training.py --out $(BENCH)
	$(BIN)/python benchmarks/decoding.py --out $(BENCH)
	$(BIN)/python benchmarks/growth.py --out $(BENCH)
	$(BIN)/python benchmarks/performance.py --results $(BENCH)

bench-gpu: $(INSTALLED)  ## Compare training on a CUDA device; goes on where it was stopped.
	$(BIN)/python benchmarks/training.py --device cuda --out $(BENCH)

bench-light: $(INSTALLED)  ## Time what needs no model: commands, notes, ROUGE, reports. Some minutes.
	$(BIN)/python benchmarks/startup.py --out $(BENCH)
	$(BIN)/python benchmarks/notes.py --out $(BENCH)
	$(BIN)/python benchmarks/rouge.py
	$(BIN)/python benchmarks/reports.py

GPU := PYTHONPATH=benchmarks $(BIN)/python -m gpu
gpu: $(INSTALLED)  ## Test and measure on a CUDA device; 8 minutes. OUT=DIR also keeps an archive there.
	$(GPU) $(if $(OUT),--out $(OUT))

gpu-tiny: $(INSTALLED)  ## Rehearse make gpu on the CPU; its numbers say nothing.
	$(GPU) --tiny --device cpu $(if $(OUT),--out $(OUT))

gpu-wheels: $(INSTALLED)  ## Fetch what scripts/gpu.sh installs on a GPU machine without a network.
	$(BIN)/python benchmarks/gpu/wheels.py

check-compressors: $(INSTALLED)  ## Check all compressors on three families against the expected outcomes. Minutes.
	OMP_NUM_THREADS=1 $(BIN)/harness check --all --expected tests/harness/testing/expected.json

check-prediction: $(INSTALLED)  ## Compare predicted with measured memory; write JSON. Some minutes.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/prediction.py --out $(BENCH)

check-intervals: $(INSTALLED)  ## Profile twice: do the intervals hold? Some ten minutes, alone.
	$(BIN)/python benchmarks/intervals.py --out $(BENCH)

STUDY := OMP_NUM_THREADS=1 PYTHONPATH=benchmarks $(BIN)/python -m study
study: $(INSTALLED)  ## Compare all methods on the embedded task; write docs/study.md. Three hours; resumes.
	$(STUDY)

study-cheaper: $(INSTALLED)  ## Compare cheap recipes with the paper's; write docs/study-cheaper.md. An hour; resumes. TASK=...
	$(STUDY) --study cheaper $(if $(TASK),--task $(TASK))

study-cheaper-costs: $(INSTALLED)  ## Measure speed and memory of these recipes. Half an hour, alone; resumes.
	$(STUDY) costs --study cheaper $(if $(TASK),--task $(TASK))

study-costs: $(INSTALLED)  ## Measure speed and memory of the study's recipes. An hour, alone; resumes.
	$(STUDY) costs

RESUME ?= results/resume
check-resume: $(INSTALLED)  ## Kill a sweep of six recipes twice, and compare it with one left in peace.
	$(BIN)/python benchmarks/resume.py --out $(RESUME) --seeds 3

# A file's tests share what they set up, so that it goes to one worker; in the order of folders, as
# the last ones hold only short files and no worker waits long for the other.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)  ## Run the tests, but for the slow ones and those that need a GPU.
	# One thread a worker: threads that wait for each other on a busy core take many times as long.
	# And no GPU: tests that let the device be chosen are those of the CPU.
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/pytest $(TWO) -m "not slow and not gpu"

test-slow: $(INSTALLED)  ## Run the tests that take minutes.
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/pytest $(TWO) -m "slow and not gpu"

test-gpu: $(INSTALLED)  ## Run the tests that need a CUDA device.
	$(BIN)/pytest -m gpu

lint: $(INSTALLED)  ## Check style, format and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:  ## Remove .venv, caches and build outputs; results stay.
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
