# SPDX-License-Identifier: GPL-2.0
#
# make                 hvrs.ko and hvrsctl for the running kernel, under build/host
# make lab             the same for the lab's kernel, under build/lab (makes the lab first)
# make lab-shell       a shell in the lab's root file system; or: tests/lab/enter COMMAND...
#
# Variables: KERNEL=RELEASE builds for another kernel than the running one; HVRS_CACHE=DIR is where the lab is kept
# (/var/cache/hvrs); V=1 shows commands.

ifdef HVRS_IN_LAB
KERNEL ?= $(shell ls /lib/modules | sort -V | tail -n 1)
CACHE := /cache
BUILD := build/lab
else
KERNEL ?= $(shell uname -r)
CACHE := $(or $(HVRS_CACHE),/var/cache/hvrs)
BUILD := build/host
endif
JOBS ?= $(shell nproc)
LAB := tests/lab/enter

all: module

# KDIR is asked for only when something is built, because making it can take minutes.
module:
	@mkdir -p $(BUILD)/module
	@kdir=$$(rust/kdir '$(KERNEL)' '$(CACHE)') && \
	$(MAKE) --no-print-directory -C "$$kdir" M='$(CURDIR)' MO='$(CURDIR)/$(BUILD)/module' modules

lab:
	@$(LAB) $(MAKE) -j$(JOBS) all

lab-shell:
	@$(LAB) bash

clean:
	rm -rf build/host build/lab

.PHONY: all module lab lab-shell clean
