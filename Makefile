# Every target finds ComfyUI by COMFYUI_PATH, or sets one up in a cache outside this folder: see .ci/host.
IN_HOST = host=$$(.ci/host) && eval "$$host" && export COMFYUI_PATH &&

.PHONY: demo test lint full-size

demo: ## compose a person from parts, headless in the real ComfyUI
	@$(IN_HOST) "$$PYTHON" .ci/demo.py

test: ## all tests but the slow ones
	@$(IN_HOST) "$$PYTHON" -m pytest -m "not slow"

lint:
	@$(IN_HOST) "$$PYTHON" -m ruff check .

full-size: ## the release's size with random weights, at 768x512: needs 20 GB of memory, 6 GB of disk and some patience
	@$(IN_HOST) "$$PYTHON" .ci/full_size.py
