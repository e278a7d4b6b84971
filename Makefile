# Every target finds ComfyUI by COMFYUI_PATH, or sets one up in a cache outside this folder: see .ci/host.
in_host = host=$$(.ci/host $(1)) && eval "$$host" && export COMFYUI_PATH PYTHONPATH=tests &&

VERSIONS ?= 0.16.3 0.20.1 0.26.0 0.30.0

training = diffusers accelerate omegaconf skimage
# What the tests import beside pytest.
tested = $(training) ray pyarrow filelock

# What opens the editor.
browser = playwright==1.65.2

# About half of what the tests take.
half = tests/server tests/encoders

.PHONY: help demo thumbnails node-pictures help-pictures test slow versions editor lint bench full-size evaluate train-paper-doll

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## compose a paper doll from parts, headless in the real ComfyUI
	@$(call in_host) "$$PYTHON" bench/demo.py

test: ## all tests but the slow ones and those that open the editor, in two processes
	@$(call in_host,pytest $(tested)) true || exit 1; \
	log=$$(mktemp); trap 'kill $$other 2> /dev/null; rm -f "$$log"' EXIT INT; \
	"$$PYTHON" -m pytest -m "not slow" $(half) > "$$log" 2>&1 & other=$$!; \
	"$$PYTHON" -m pytest -m "not slow" $(addprefix --ignore=,$(half)); failed=$$?; \
	wait $$other || failed=1; cat "$$log"; exit $$failed

slow: ## the slow tests: torch.compile, training in two processes as torch's launcher starts it, a catalogue of 500 rows
	@$(call in_host,pytest $(tested)) "$$PYTHON" -m pytest -m slow --ignore=tests/editor

versions: ## the tests that touch the host, on older ComfyUIs too; on one only by VERSIONS=0.20.1
	@for version in $(VERSIONS); do \
		echo "ComfyUI $$version"; \
		host=$$(env -u COMFYUI_PATH COMFYUI_VERSION=$$version .ci/host pytest $(tested)) && eval "$$host" && export COMFYUI_PATH && \
		"$$PYTHON" -m pytest -m "not slow" tests/server tests/nodes tests/composition || exit 1; \
	done

editor: ## open every workflow in the real editor and run two: needs Chromium, CHROMIUM names it if it is not on the path
	@$(call in_host,pytest $(tested)) "$$PYTHON" -m pip install --quiet --disable-pip-version-check $(browser) && \
	"$$PYTHON" -m pytest tests/editor

lint: ## ruff, as CI runs it
	@$(call in_host,ruff) "$$PYTHON" -m ruff check .

bench: ## what references cost, as ratios; options by ARGS, see docs/performance.md
	@$(call in_host,pytest matplotlib) "$$PYTHON" bench/bench.py $(ARGS)

full-size: ## the whole workflow at the release's size with random weights: from photographs by PHOTOS=1; 13 GB of memory (it fails above 20), 6 GB of disk, some patience
	@$(call in_host) "$$PYTHON" bench/full_size.py

thumbnails: ## the pictures of the workflows in the template browser, again: for a new model of dolls, or a new workflow
	@$(call in_host) "$$PYTHON" bench/thumbnails.py

node-pictures: ## the pictures of the nodes in their help pages, again: for a node that looks different now; needs Chromium, as editor does
	@$(call in_host) "$$PYTHON" -m pip install --quiet --disable-pip-version-check $(browser) && \
	"$$PYTHON" bench/node_pictures.py

help-pictures: ## the pictures in the help pages of what nodes do, again: for a new model or new figures of dolls; some by ARGS="fit people"
	@$(call in_host,omegaconf) "$$PYTHON" bench/help_pictures.py $(ARGS)

evaluate: ## what the paper-doll model can do, as a table and a plot; other checkpoints by ARGS, see docs/training.md
	@$(call in_host,$(training)) "$$PYTHON" -m training.paper_dolls.evaluate $(ARGS)

# Outside the checkout, so that a training goes on from another one.
TRAINED ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/parts2whole/training
doll := $(TRAINED)/paper_doll

train-paper-doll: ## train the model in models/paper_doll again, from nothing, on one core: most of a day; settings of its last part by ARGS
	@echo "A VAE and eleven parts into $(doll)_vae, $(doll), $(doll)_2 and so on, each of which goes on where it was broken off."
	@$(call in_host,$(training)) export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 && \
	"$$PYTHON" -m training.train_vae training/configs/paper_doll_vae.yaml loop.output="$(doll)_vae" && \
	"$$PYTHON" -m training.train training/configs/paper_doll.yaml loop.output="$(doll)" pretrained="$(doll)_vae" && \
	before="$(doll)" && for part in 2 3 4 5 6 7 8 9 10; do \
		"$$PYTHON" -m training.train training/configs/paper_doll_$$part.yaml loop.output="$(doll)_$$part" pretrained="$$before/checkpoint" \
			|| exit 1; \
		before="$(doll)_$$part"; \
	done && \
	"$$PYTHON" -m training.train training/configs/paper_doll_11.yaml loop.output="$(doll)_11" pretrained="$$before/checkpoint" $(ARGS)
