# Every target installs what it needs into .venv. System packages: Python >= 3.11 with venv; the tests of
# the napari plugin and its pictures want a virtual screen, which they install on Debian and its kin.
#   make PYTHON=/path/to/python3.12 test
#   make PIP_FLAGS="--index-url ..." test      another source of packages, such as PyTorch's CPU builds
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
MEDRL_DATA ?= ../shared/data
VENV := .venv
BIN := $(VENV)/bin
export MEDRL_DATA

.PHONY: help demo test fuzz lint train-landmark train-head-any train-afids train-mouse-skull train-parts train-hippocampus train-sarcoma train-rigid-head \
        train-spine-boxes train-brain-boxes train-carry-scans train-carry-films train-tracks train-visits \
        train-sarcoma-boxes bench docs docs-napari clean
help:
	@echo "make demo            detect landmarks in a real head MRI and draw them"
	@echo "make test            run every test"
	@echo "make fuzz            read ten thousand damaged files (FUZZ_COUNT, FUZZ_SEED)"
	@echo "make lint            ruff and mypy --strict"
	@echo "make train-landmark, make train-head-any, make train-afids, make train-mouse-skull"
	@echo "                     train the landmark models that ship (MEDRL_DATA: the scans)"
	@echo "make train-parts     train the part detectors that they are measured against"
	@echo "make train-hippocampus, make train-sarcoma"
	@echo "                     train the seed models that ship"
	@echo "make train-rigid-head"
	@echo "                     train the registration model that ships"
	@echo "make train-spine-boxes, make train-brain-boxes"
	@echo "                     train the models that box organs"
	@echo "make train-carry-scans, make train-carry-films"
	@echo "                     train the models that carry outlines"
	@echo "make train-tracks, make train-visits"
	@echo "                     build the models that follow objects and points"
	@echo "make train-sarcoma-boxes"
	@echo "                     train one that boxes tumours in PET and CT; it does not ship"
	@echo "make bench           run every benchmark in benchmarks/"
	@echo "make docs            build the documentation into site/"
	@echo "make docs-napari     make the pictures of the napari plugin again"
	@echo "make clean           remove the environment and everything built"

# Installs Debian packages, as root or by sudo without a password.
define apt_install
as_root=''; [ "$$(id -u)" = 0 ] || as_root='sudo -n'; command -v apt-get >/dev/null \
  && $$as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -q --no-install-recommends
endef

# Debian ships Python without ensurepip: python3-venv brings it.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'medrl needs Python 3.11 or newer: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  package="$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
	  $(apt_install) "$$package" \
	    || { echo "Python's venv module is missing: install $$package as root" >&2; exit 1; }; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# One stamp per set of extras.
INSTALL = $(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt
$(VENV)/.installed-%: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) -e '.[$*]'
	touch $@
.PRECIOUS: $(VENV)/.installed-%

# What Qt's X11 platform and Mesa's software OpenGL need. Without it the plugin's tests are skipped.
SCREEN := xvfb xauth libegl1 libgl1 libopengl0 libgl1-mesa-dri libdbus-1-3 libfontconfig1 libglib2.0-0 \
  libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 \
  libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1 fonts-dejavu-core
$(VENV)/.screen: $(VENV)/.created Makefile
	@dpkg -s $(SCREEN) >/dev/null 2>&1 || { $(apt_install) $(SCREEN); } \
	  || echo "No virtual screen: tests of the napari plugin are skipped. They want: $(SCREEN)" >&2
	touch $@

demo: $(VENV)/.installed-samples
	$(BIN)/medrl demo

FUZZ_COUNT ?= 10000
FUZZ_SEED ?= 0
fuzz: $(VENV)/.installed-test
	$(BIN)/python tests/fuzz/run.py --whole --corpus --count $(FUZZ_COUNT) --seed $(FUZZ_SEED)

test: $(VENV)/.installed-test $(VENV)/.screen
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train-landmark: $(VENV)/.installed-train
	$(BIN)/medrl datasets export ixi_brain_t1 --brains --root $(MEDRL_DATA)/ixi_brain_t1 -o runs/brain-t1/data
	$(BIN)/medrl train landmark --name brain-t1 --modality MR --fine-map --parts.fine 700 \
	  --card recipes/brain-t1/card.json --licence recipes/brain-t1/LICENSE \
	  --data runs/brain-t1/data/datalist.json -o runs/brain-t1

train-head-any: $(VENV)/.installed-train
	$(BIN)/medrl datasets export ixi_brain_t1 --brains --tissues --root $(MEDRL_DATA)/ixi_brain_t1 -o runs/head-any/data
	$(BIN)/medrl train landmark --name head-any --modality any --start brain-t1 \
	  --imitation-steps 3600 2600 2000 --dqn-steps 300 200 100 \
	  --learner.window-hu -100 200 --learner.learning-rate 1e-3 \
	  --learner.augmentation.contrast-probability 0.7 --learner.augmentation.thick-slice 3 \
	  --card recipes/head-any/card.json --licence recipes/head-any/LICENSE \
	  --data runs/head-any/data/datalist.json -o runs/head-any/first
	$(BIN)/medrl train landmark --name head-any --modality any --start runs/head-any/first/head-any --blend 0.5 \
	  --imitation-steps 3000 2200 1600 --dqn-steps 150 100 50 \
	  --learner.window-hu -100 200 --learner.learning-rate 1e-3 \
	  --learner.augmentation.contrast-probability 0.7 --learner.augmentation.thick-slice 3 \
	  --learner.augmentation.deformation 2 --learner.augmentation.blur 1.2 --learner.augmentation.scaling 0.15 \
	  --card recipes/head-any/card.json --licence recipes/head-any/LICENSE \
	  --data runs/head-any/data/datalist.json -o runs/head-any/second

# The points were carried from templates by recipes/afids-t1/carry.py.
train-afids: $(VENV)/.installed-train
	$(BIN)/medrl datasets export ixi_brain_t1 --brains --landmarks recipes/afids-t1/points.csv \
	  --root $(MEDRL_DATA)/ixi_brain_t1 -o runs/afids-t1/data
	$(BIN)/python recipes/afids-t1/add_templates.py runs/afids-t1/data/datalist.json
	$(BIN)/medrl train landmark --name afids-t1 --modality MR --start brain-t1 \
	  --card recipes/afids-t1/card.json --licence recipes/afids-t1/LICENSE \
	  --imitation-steps 3200 2400 1600 --dqn-steps 200 100 50 --learner.learning-rate 1e-3 \
	  --learner.augmentation.contrast-probability 0.3 --learner.augmentation.deformation 3 \
	  --learner.augmentation.blur 1 --learner.augmentation.scaling 0.2 \
	  --data runs/afids-t1/data/datalist.json -o runs/afids-t1

train-mouse-skull: $(VENV)/.installed-train
	$(BIN)/medrl datasets export mouse_skull_ct --root $(MEDRL_DATA)/mouse_skull_ct -o runs/mouse-skull-ct/data
	$(BIN)/medrl train landmark --name mouse-skull-ct --modality CT --pose any --mirror --fine-map --parts.fine 700 \
	  --imitation-steps 6000 2500 --dqn-steps 300 100 \
	  --learner.spacings 0.15 0.3 --learner.near 6 --learner.refresh-every 20 --learner.slots 48 \
	  --learner.augmentation.rotation-deg 12 --learner.augmentation.pose-probability 0.9 \
	  --learner.augmentation.scaling 0.08 --learner.augmentation.crop-probability 0.1 \
	  --learner.augmentation.thick-slice 1.6 --learner.augmentation.noise 0.06 \
	  --learner.augmentation.bias 0.15 --learner.augmentation.gamma 0.25 \
	  --card recipes/mouse-skull-ct/card.json --licence recipes/mouse-skull-ct/LICENSE \
	  --data runs/mouse-skull-ct/data/datalist.json -o runs/mouse-skull-ct

# The part detectors that the agents are measured against.
train-parts: $(VENV)/.installed-train
	$(BIN)/medrl datasets export ixi_brain_t1 --brains --root $(MEDRL_DATA)/ixi_brain_t1 -o runs/brain-t1/data
	$(BIN)/medrl train landmark --name brain-t1-parts --modality MR --detector parts \
	  --parts.detector 700 --parts.spatial 120 --parts.joint 180 --parts.fine 700 \
	  --learner.learning-rate 2e-3 \
	  --card recipes/brain-t1-parts/card.json --licence recipes/brain-t1-parts/LICENSE \
	  --data runs/brain-t1/data/datalist.json -o runs/brain-t1-parts
	$(BIN)/medrl datasets export mouse_skull_ct --root $(MEDRL_DATA)/mouse_skull_ct -o runs/mouse-skull-ct/data
	$(BIN)/medrl train landmark --name mouse-skull-ct-parts --modality CT --detector parts --pose any --mirror \
	  --parts.detector 500 --parts.spatial 100 --parts.joint 100 --parts.fine 700 --learner.learning-rate 2e-3 \
	  --learner.spacings 0.15 0.6 1.2 --learner.refresh-every 8 --learner.slots 48 \
	  --learner.augmentation.rotation-deg 12 --learner.augmentation.pose-probability 0.9 \
	  --learner.augmentation.scaling 0.08 --learner.augmentation.crop-probability 0.1 \
	  --learner.augmentation.thick-slice 1.6 --learner.augmentation.noise 0.06 \
	  --learner.augmentation.bias 0.15 --learner.augmentation.gamma 0.25 \
	  --card recipes/mouse-skull-ct-parts/card.json --licence recipes/mouse-skull-ct-parts/LICENSE \
	  --data runs/mouse-skull-ct/data/datalist.json -o runs/mouse-skull-ct-parts

train-hippocampus: $(VENV)/.installed-train
	$(BIN)/medrl datasets export msd_hippocampus --masks --as-published \
	  --root $(MEDRL_DATA)/msd_hippocampus -o runs/hippocampus-t1/data
	$(BIN)/medrl train seednet --name hippocampus-t1 \
	  --targets whole=1,2 anterior=1 posterior=2 \
	  --sampling.window 32 48 40 --perception.steps 1600 \
	  --card recipes/hippocampus-t1/card.json --licence recipes/hippocampus-t1/LICENSE \
	  --data runs/hippocampus-t1/data/datalist.json -o runs/hippocampus-t1

train-sarcoma: $(VENV)/.installed-train
	$(BIN)/medrl datasets export sts_ct_pet --masks \
	  --root $(MEDRL_DATA)/sts_ct_pet -o runs/sarcoma-pet-ct/data
	$(BIN)/medrl train seednet --name sarcoma-pet-ct \
	  --channels PET:suv CT:hounsfield --targets tumour=1 --spacing 5 \
	  --sampling.window 40 40 48 --sampling.scaling 0.2 --sampling.drop-channel 0.5 \
	  --perception.steps 1400 --agent.imitation-steps 120 --agent.dqn-steps 120 \
	  --card recipes/sarcoma-pet-ct/card.json --licence recipes/sarcoma-pet-ct/LICENSE \
	  --data runs/sarcoma-pet-ct/data/datalist.json -o runs/sarcoma-pet-ct

train-rigid-head: $(VENV)/.installed-train
	$(BIN)/medrl datasets export ixi_brain_t1 --brains --root $(MEDRL_DATA)/ixi_brain_t1 -o runs/rigid-head/data
	$(BIN)/medrl train registration --name rigid-head \
	  --card recipes/rigid-head/card.json --licence recipes/rigid-head/LICENSE \
	  --data runs/rigid-head/data/datalist.json -o runs/rigid-head

# The datalists say which labels make up each target.
train-spine-boxes: $(VENV)/.installed-train
	$(BIN)/medrl datasets export spine_mr_lumbar --masks \
	  --root $(MEDRL_DATA)/spine_mr_lumbar -o runs/spine-boxes/data
	$(BIN)/medrl train localization --name spine-boxes --modality MR \
	  --learner.augmentation.flip \
	  --card recipes/spine-boxes/card.json --licence recipes/spine-boxes/LICENSE \
	  --data runs/spine-boxes/data/datalist.json -o runs/spine-boxes

train-brain-boxes: $(VENV)/.installed-train
	$(BIN)/medrl datasets export ixi_brain_t1 --masks --brains \
	  --root $(MEDRL_DATA)/ixi_brain_t1 -o runs/brain-boxes/data
	$(BIN)/medrl train localization --name brain-boxes --modality MR \
	  --proposer-steps 1300 --imitation-steps 3000 \
	  --card recipes/brain-boxes/card.json --licence recipes/brain-boxes/LICENSE \
	  --data runs/brain-boxes/data/datalist.json -o runs/brain-boxes

train-sarcoma-boxes: $(VENV)/.installed-train
	$(BIN)/medrl datasets export sts_ct_pet --masks \
	  --root $(MEDRL_DATA)/sts_ct_pet -o runs/sarcoma-boxes/data
	$(BIN)/medrl train localization --name sarcoma-boxes \
	  --channels PET:suv CT:hounsfield --learner.augmentation.flip \
	  --proposer-steps 700 --imitation-steps 1200 --dqn-steps 150 \
	  --card recipes/sarcoma-boxes/card.json --licence recipes/sarcoma-boxes/LICENSE \
	  --data runs/sarcoma-boxes/data/datalist.json -o runs/sarcoma-boxes

train-carry-scans: $(VENV)/.installed-train
	$(BIN)/python recipes/carry-scans/datalist.py runs/carry-scans/data
	$(BIN)/medrl train cutting --name carry-scans --cut-steps 5000 --policy-steps 350 \
	  --card recipes/carry-scans/card.json --licence recipes/carry-scans/LICENSE \
	  --data runs/carry-scans/data/datalist.json -o runs/carry-scans

train-carry-films: $(VENV)/.installed-train
	$(BIN)/python recipes/carry-films/datalist.py runs/carry-films/data
	$(BIN)/medrl train cutting --name carry-films --model.in-channels 3 --model.modality film \
	  --model.view.side 64 --model.view.share 0.15 --model.view.moves 8 \
	  --learner.batch 32 --learner.slots 48 --learner.refresh 2 --cut-steps 3500 --policy-steps 500 \
	  --card recipes/carry-films/card.json --licence recipes/carry-films/LICENSE \
	  --data runs/carry-films/data/datalist.json -o runs/carry-films

train-tracks: $(VENV)/.installed-train
	$(BIN)/python recipes/tracks/build.py runs/tracks

train-visits: $(VENV)/.installed-train
	$(BIN)/python recipes/visits/build.py runs/visits

bench: $(VENV)/.installed-test
	@set -e; for script in benchmarks/[!_]*.py; do \
	  echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

docs-napari: $(VENV)/.installed-napari $(VENV)/.screen
	xvfb-run -a -s "-screen 0 1600x1200x24" $(BIN)/python docs/napari_figures.py

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
