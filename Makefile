# Every target finds ComfyUI by COMFYUI_PATH, or sets one up in a cache outside this folder: see .ci/host.
in_host = host=$$(.ci/host $(1)) && eval "$$host" && export COMFYUI_PATH &&

.PHONY: demo test lint bench full-size

demo: ## compose a person from parts, headless in the real ComfyUI
	@$(call in_host) "$$PYTHON" .ci/demo.py

test: ## all tests but the slow ones
	@$(call in_host,pytest) "$$PYTHON" -m pytest -m "not slow"

lint:
	@$(call in_host,ruff) "$$PYTHON" -m ruff check .

bench: ## what references cost: one step with and without them, as ratios
	@$(call in_host,pytest) "$$PYTHON" .ci/bench.py

full-size: ## the release's size with random weights, at 768x512: needs 20 GB of memory, 7 GB of disk and some patience
	@$(call in_host) "$$PYTHON" .ci/full_size.py
