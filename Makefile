# SPDX-License-Identifier: MIT
# The two commands for a fresh machine are `make demo` and `make test`; each installs what is missing first. CMake does
# the building: this file only knows which presets and scripts make up a command. `make help` lists them.

PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
PYTHON ?= python3
CLANG_FORMAT ?= clang-format
# More options for cmake, such as -DGYRE_WITH_URING=OFF.
CMAKE_FLAGS ?=
MAKEFLAGS += --no-print-directory

C_FILES = find include src tests examples bench -name '*.[ch]' -o -name '*.cpp'

.PHONY: release setup demo check test bench bench-setup bench-full install format clean help

release: ## build the library, examples and benchmarks as users get them, in build/release (the default)
	@scripts/need_cmake.sh
	cmake --preset release $(CMAKE_FLAGS)
	cmake --build --preset release --parallel $(JOBS) --target gyre_product

setup: ## install the packages that building and testing need, where they are missing
	@scripts/setup.sh

demo: ## set up, build, and show io_uring next to epoll on this machine
	@scripts/setup.sh
	@$(MAKE) release
	$(PYTHON) bench/demo.py --build build/release

check: ## set up, then run a selection of the tests: release, and with sanitizers
	@scripts/setup.sh
	$(PYTHON) scripts/test.py --check --jobs $(JOBS)

test: ## set up, then run every test: sanitizers, threads, without io_uring, installed
	@scripts/setup.sh
	$(PYTHON) scripts/test.py --jobs $(JOBS)

bench: release ## the short set of benchmarks, under three minutes; results go to bench/results
	$(PYTHON) bench/run.py --build build/release

bench-setup: ## install the servers that the benchmarks compare with: libuv, libevent, libev, Asio, haproxy, nginx
	@scripts/setup.sh bench

bench-full: ## install those servers where they are missing, run every benchmark, and write bench/RESULTS.md
	@scripts/setup.sh bench
	@$(MAKE) release
	$(PYTHON) bench/full.py --build build/release

install: ## build the two libraries and install them under PREFIX (/usr/local); DESTDIR is honoured
	@DESTDIR="$(DESTDIR)" scripts/install.sh "$(PREFIX)" $(JOBS) $(CMAKE_FLAGS)

format: ## apply .clang-format to every C and C++ file
	$(C_FILES) | xargs $(CLANG_FORMAT) -i

clean: ## remove everything that was built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):[a-z ]*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
