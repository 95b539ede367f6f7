# SPDX-License-Identifier: GPL-2.0
#
# make                 hvrs.ko and hvrsctl for the running kernel, under build/host
# make lab             the same for the lab's kernel, under build/lab (makes the lab first, about 4 minutes)
# make lab-run JOB='insmod hvrs.ko; dmesg | tail' [FILES='build/lab/x tests/y.sh'] [OPTIONS='--kvm --cpus 2 --model tigerlake --dmesg']
#                      boots the lab's machine (Bochs) with hvrs.ko, hvrsctl and FILES in /job and runs JOB there, a file or
#                      a text for the shell; the exit status is the job's. OPTIONS=--help lists all
# make demo            a Linux guest boots on hvrs in the lab, its console shown live
# make test            all tests, in the lab; SUITES='check units guests' only these
# make test-all        the same and what takes long
# make test-on-kvm     of the latter, the micro-guests on QEMU and KVM: build/on-kvm.md says who is right where that differs from hvrs
# make bench           what operations cost, beside KVM: a table and build/bench.json
# make check           formatting, lints, unsafe allow-list, shell scripts
#                      demo, test and bench with HOST=1: on this machine, which has VT-x, instead of in the lab (not as root:
#                      only what has to be is, by sudo)
# make install         what "make" built, for this machine (as root); also uninstall, dkms-install. Where to: PREFIX, DESTDIR
# make lab-shell       a shell in the lab's root file system; or: tests/lab/enter COMMAND...
#
# Variables: KERNEL=RELEASE builds for another kernel than the running one; HVRS_CACHE=DIR is where the lab is kept
# (/var/cache/hvrs); V=1 shows commands; PROFILE=dev builds hvrsctl faster.

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

PROFILE ?= release

all: module hvrsctl

# KDIR is asked for only when something is built, because making it can take minutes.
module:
	@mkdir -p $(BUILD)/module
	@kdir=$$(rust/kdir '$(KERNEL)' '$(CACHE)') && \
	$(MAKE) --no-print-directory -C "$$kdir" M='$(CURDIR)' MO='$(CURDIR)/$(BUILD)/module' modules

hvrsctl:
	@command -v cargo > /dev/null && command -v cc > /dev/null || \
		{ echo "hvrs: to build hvrsctl, more must be there first; try: apt install cargo gcc libc6-dev" >&2; exit 1; }
	@cargo build -q --profile $(PROFILE) --manifest-path userspace-tool/Cargo.toml --target-dir $(BUILD)/hvrsctl-cargo
	@cp -u $(BUILD)/hvrsctl-cargo/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/hvrsctl $(BUILD)/hvrsctl

# The micro-guests: freestanding images.
guests:
	@cargo build -q --release --manifest-path tests/guests/Cargo.toml --target-dir build/guests

# The ABI tests: a program for the machine that runs the module.
abi:
	@cargo build -q --release --manifest-path tests/abi/Cargo.toml --target-dir $(BUILD)/abi-cargo
	@cp -u $(BUILD)/abi-cargo/release/abi $(BUILD)/abi

# The tests of the crate mshv-ioctls as it was published; hvrsctl's build has brought its source.
MSHV_IOCTLS := mshv-ioctls-0.7.1
mshv-ioctls: hvrsctl
	@[ -e $(BUILD)/$(MSHV_IOCTLS)/Cargo.toml ] || \
	cp -r "$${CARGO_HOME:-$$HOME/.cargo}"/registry/src/*/$(MSHV_IOCTLS) $(BUILD)/
	@cd $(BUILD)/$(MSHV_IOCTLS) && cargo test -q --no-run --target-dir ../mshv-ioctls-cargo --message-format=json | \
	sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1 | xargs -I{} cp {} ../mshv-ioctls

# clippy over the module, with objects of its own because they are compiled by another program.
module-clippy:
	@mkdir -p $(BUILD)/clippy/module
	@kdir=$$(rust/kdir '$(KERNEL)' '$(CACHE)') && \
	$(MAKE) --no-print-directory -C "$$kdir" M='$(CURDIR)' MO='$(CURDIR)/$(BUILD)/clippy/module' CLIPPY=1 modules

lab:
	@$(LAB) $(MAKE) --no-print-directory -j$(JOBS) all

# The driver of the lab, itself built in the lab.
LAB_DRIVER := $(BUILD)/cargo/debug/lab
lab-driver:
	@cargo build -q --manifest-path tests/lab/Cargo.toml --target-dir $(BUILD)/cargo

# The job goes through the environment, so that no quoting is lost on the way.
JOB ?= insmod hvrs.ko && dmesg | grep hvrs && rmmod hvrs
export JOB
ifdef HVRS_IN_LAB
lab-run: module lab-driver
	@$(LAB_DRIVER) run $(foreach file,$(wildcard $(BUILD)/module/hvrs.ko $(BUILD)/hvrsctl) $(FILES),--file '$(file)') $(OPTIONS) "$$JOB"
else
lab-run:
	@$(LAB) env JOB="$$JOB" $(MAKE) --no-print-directory -j$(JOBS) $@ FILES='$(FILES)' OPTIONS='$(OPTIONS)'
endif

ifneq ($(HOST)$(HVRS_IN_LAB),)
ifdef HOST
export HVRS_HOST := 1
# Else what root builds here is in the user's way ever after.
ifneq ($(filter-out 0,$(SUDO_UID)),)
$(error run this without sudo: it asks for what has to be root itself)
endif
endif
test: module hvrsctl guests abi mshv-ioctls lab-driver
	@$(LAB_DRIVER) test $(SUITES)

test-all: module hvrsctl guests abi mshv-ioctls lab-driver
	@$(LAB_DRIVER) test --all

# hvrs is not among it, but each boot brings module and tool.
test-on-kvm: module hvrsctl guests lab-driver
	@$(LAB_DRIVER) test on-kvm

check: lab-driver
	@$(LAB_DRIVER) test check

demo: module hvrsctl lab-driver
	@$(LAB_DRIVER) demo

bench: module hvrsctl guests lab-driver
	@$(LAB_DRIVER) bench
else
test test-all test-on-kvm check demo bench:
	@$(LAB) $(MAKE) --no-print-directory -j$(JOBS) $@ SUITES='$(SUITES)' PROFILE=$(PROFILE)
endif

lab-shell:
	@$(LAB) bash

clean:
	rm -rf build/host build/lab

.PHONY: all module module-clippy hvrsctl guests abi mshv-ioctls lab lab-driver lab-run lab-shell test test-all test-on-kvm check demo bench clean

# ---- installation ----

VERSION := $(shell sed -n 's/^pub(crate) const VERSION: &str = "\(.*\)";/\1/p' rust/machine.rs)
PREFIX ?= /usr/local
MODULES ?= /lib/modules/$(KERNEL)/updates
UDEV ?= $(PREFIX)/lib/udev/rules.d
SYSUSERS ?= $(PREFIX)/lib/sysusers.d
DKMS ?= /usr/src/hvrs-$(VERSION)

install_files = $(MODULES)/hvrs.ko $(PREFIX)/bin/hvrsctl $(PREFIX)/share/man/man1/hvrsctl.1 $(UDEV)/60-hvrs.rules $(SYSUSERS)/hvrs.conf

# Builds nothing: root has no business with compilers.
install:
	@[ -e $(BUILD)/module/hvrs.ko ] || { echo "hvrs: $(BUILD)/module/hvrs.ko is not there: run make first" >&2; exit 1; }
	@$(MAKE) --no-print-directory install-tool
	install -D -m 644 $(BUILD)/module/hvrs.ko $(DESTDIR)$(MODULES)/hvrs.ko
	$(if $(DESTDIR),,depmod $(KERNEL))

# Everything but the module.
install-tool:
	@[ -e $(BUILD)/hvrsctl ] || { echo "hvrs: $(BUILD)/hvrsctl is not there: run make first" >&2; exit 1; }
	install -D -m 755 $(BUILD)/hvrsctl $(DESTDIR)$(PREFIX)/bin/hvrsctl
	install -D -m 644 docs/hvrsctl.1 $(DESTDIR)$(PREFIX)/share/man/man1/hvrsctl.1
	install -D -m 644 userspace-tool/install/60-hvrs.rules $(DESTDIR)$(UDEV)/60-hvrs.rules
	install -D -m 644 userspace-tool/install/hvrs.conf $(DESTDIR)$(SYSUSERS)/hvrs.conf
ifndef DESTDIR
	getent group mshv > /dev/null || groupadd --system mshv
	@! command -v udevadm > /dev/null || udevadm control --reload 2> /dev/null || true
endif

# The group stays: files may belong to it.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(install_files))
	$(if $(DESTDIR),,depmod $(KERNEL))

# The module's source where DKMS builds it anew for each kernel.
dkms-install:
	install -d $(DESTDIR)$(DKMS)
	cp -r Makefile Kbuild rust include LICENSE LICENSES $(DESTDIR)$(DKMS)
	sed 's/#MODULE_VERSION#/$(VERSION)/' dkms.conf > $(DESTDIR)$(DKMS)/dkms.conf
	$(if $(DESTDIR),,dkms install -m hvrs -v $(VERSION) -k $(KERNEL))

dkms-uninstall:
	$(if $(DESTDIR),,dkms remove -m hvrs -v $(VERSION) --all)
	rm -rf $(DESTDIR)$(DKMS)

.PHONY: install install-tool uninstall dkms-install dkms-uninstall
