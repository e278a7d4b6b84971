# Every target finds ComfyUI by COMFYUI_PATH, or sets one up in a cache outside this folder: see .ci/host.
in_host = host=$$(.ci/host $(1)) && eval "$$host" && export COMFYUI_PATH &&

training = diffusers accelerate omegaconf skimage

.PHONY: demo test lint bench full-size evaluate train-paper-doll

demo: ## compose a person from parts, headless in the real ComfyUI
	@$(call in_host) "$$PYTHON" .ci/demo.py

test: ## all tests but the slow ones
	@$(call in_host,pytest $(training)) "$$PYTHON" -m pytest -m "not slow"

lint:
	@$(call in_host,ruff) "$$PYTHON" -m ruff check .

bench: ## what references cost: one step with and without them, as ratios
	@$(call in_host,pytest) "$$PYTHON" .ci/bench.py

full-size: ## the release's size with random weights, at 768x512: needs 20 GB of memory, 7 GB of disk and some patience
	@$(call in_host) "$$PYTHON" .ci/full_size.py

evaluate: ## what a paper-doll model can do, as a table and a plot; options by ARGS
	@$(call in_host,$(training)) "$$PYTHON" -m training.evaluate $(ARGS)

train-paper-doll: ## train a small model on drawn figures, from nothing but their VAE
	@$(call in_host,$(training)) "$$PYTHON" -m training.train training/configs/paper_doll_unet.yaml && \
	"$$PYTHON" -m training.train training/configs/paper_doll.yaml
