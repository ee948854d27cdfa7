# quire: `make help` says what there is.
#
# The tree is the list: every C file in a source folder is built, every test_*.c becomes a program of its own. Objects
# lie under build/<variant>/, so that release, debug and sanitizer builds never mix, and all objects of a variant are
# built again when its compiler or flags change. `make BUILD=/elsewhere …` keeps everything of one build elsewhere.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all
MAKEFLAGS += --no-print-directory --no-builtin-rules

# ---- what a user may set ---------------------------------------------------------------------------------------------

BUILD ?= build
MODEL ?= smollm2
PORT ?= 8080
T ?= 60
soak_seconds = $(if $(filter file,$(origin T)),3600,$(T))
N ?= 10000
ARGS ?=
SAN ?=
VARIANT ?= $(if $(SAN),san-$(SAN),release)
ifeq ($(origin CC),default)
CC := gcc
endif

# ---- variants: release, debug, coverage, faults, fuzz, san-address, san-undefined, san-thread --------------------------------------

ifeq ($(VARIANT),release)
CFLAGS ?= -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
else ifeq ($(VARIANT),debug)
CFLAGS ?= -Og -g3 -fno-omit-frame-pointer
else ifeq ($(VARIANT),coverage)
CFLAGS ?= -O0 -g
variant_flags := --coverage
else ifeq ($(VARIANT),faults)
# As it is shipped, with the points of base/faults.def.
CFLAGS ?= -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
variant_flags := -DQUIRE_FAULTS
else ifeq ($(VARIANT),fuzz)
# libFuzzer is clang's.
CC := clang
CFLAGS ?= -O1 -g -fno-omit-frame-pointer -U_FORTIFY_SOURCE
variant_flags := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
else ifneq ($(filter san-address san-undefined san-thread,$(VARIANT)),)
# Fortify stays off: it replaces the very calls that the sanitizers watch.
CFLAGS ?= -O1 -g -fno-omit-frame-pointer -U_FORTIFY_SOURCE
variant_flags := -fsanitize=$(VARIANT:san-%=%) -fno-sanitize-recover=all
else
$(error "$(VARIANT)" is no variant: use release, debug, coverage, faults, fuzz, or SAN=address, SAN=undefined, SAN=thread)
endif

OUT := $(BUILD)/$(VARIANT)
GEN := $(BUILD)/gen
# The programs of a release stand where people look for them.
BIN := $(if $(filter release,$(VARIANT)),$(BUILD),$(OUT))

# ---- flags -----------------------------------------------------------------------------------------------------------

PACKAGES := libzmq libprotobuf-c libevent libevent_pthreads jansson libpcre2-8 openblas numa hwloc
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Werror
ifneq ($(filter san-%,$(VARIANT)),)
# What the sanitizers weave in hides constants from gcc, which then warns of conversions that never happen.
WARNINGS := -Wall -Wextra
endif

# Asked once, and only when something is compiled.
lazy = $(eval $(1) := $(2))$($(1))
package_cflags = $(call lazy,package_cflags,$(if $(shell pkg-config --exists $(PACKAGES) && echo yes),$(shell \
    pkg-config --cflags $(PACKAGES)),$(error libraries are missing: `make deps` installs them)))
package_libs = $(call lazy,package_libs,$(shell pkg-config --libs $(PACKAGES)))

INCLUDES := -I. -I$(GEN)
# Contraction would turn a*b+c into an fma on some machines and not on others: results must not depend on that.
LANGUAGE := -std=gnu11 -D_GNU_SOURCE -ffp-contract=off -pthread
COMPILE = $(CC) $(LANGUAGE) $(INCLUDES) $(package_cflags) $(CPPFLAGS) $(WARNINGS) \
          $(CFLAGS) $(variant_flags) $(isa_flags) -MMD -MP -c
LINK = $(CC) -Wl,--as-needed $(CFLAGS) $(variant_flags) -pthread $(LDFLAGS)
LIBS = $(package_libs) -ldl -lm $(LDLIBS)

# ---- sources ---------------------------------------------------------------------------------------------------------

MACHINE := $(shell uname -m)
LIBRARY_FOLDERS := base shm proto model model/kernels
PROGRAM_FOLDERS := coordinator worker
TEST_FOLDERS := tests/unit tests/kernels

x86_only = %_avx2.c %_avx512.c %_amx.c
sources = $(if $(filter x86_64,$(MACHINE)),$(wildcard $(1)/*.c),$(filter-out $(x86_only),$(wildcard $(1)/*.c)))
objects = $(patsubst %.c,$(OUT)/%.o,$(1))

library_objects := $(call objects,$(foreach folder,$(LIBRARY_FOLDERS),$(call sources,$(folder))))
coordinator_objects := $(filter-out %/main.o,$(call objects,$(call sources,coordinator)))
worker_objects := $(filter-out %/main.o,$(call objects,$(call sources,worker)))
support_objects := $(call objects,$(call sources,tests/support))
test_sources := $(foreach folder,$(TEST_FOLDERS),$(wildcard $(folder)/test_*.c))
TESTS := $(patsubst %.c,$(OUT)/%,$(test_sources))
FUZZERS := $(patsubst %.c,$(OUT)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES := $(patsubst %.c,$(OUT)/%,$(wildcard bench/bench_*.c))

# ---- generated sources -----------------------------------------------------------------------------------------------

protos := $(wildcard proto/*.proto)
proto_headers := $(protos:%.proto=$(GEN)/%.pb-c.h)
library_objects += $(protos:%.proto=$(OUT)/gen/%.pb-c.o)

web_files := $(sort $(wildcard coordinator/web/*))
ifneq ($(web_files),)
web_header := $(GEN)/web_assets.h
coordinator_objects += $(OUT)/gen/web_assets.o
endif

generated_headers := $(proto_headers) $(web_header)

# ---- the Rust library behind one C boundary: chat templates ----------------------------------------------------------

rust_manifest := $(wildcard model/jinja/Cargo.toml)
CARGO ?= $(call lazy,CARGO,$(shell tools/find_cargo.sh))
CARGO_TARGET ?= $(BUILD)/cargo
ifneq ($(rust_manifest),)
rust_library := $(CARGO_TARGET)/release/libquire_jinja.a
rust_sources := $(wildcard model/jinja/*.toml model/jinja/*.lock model/jinja/src/*.rs model/jinja/src/*/*.rs)
endif

# What the targets below build in passing is built on all cores, unless -j says otherwise.
jobs = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc) --output-sync=target)

# Both programs with the points of base/faults.def, for tests/faults.
with_faults = $(MAKE) $(jobs) VARIANT=faults all
# The fuzz targets, where there is a clang with its run-time library; elsewhere tests/fuzz skips.
with_fuzzers = { ! tools/can_fuzz.sh || $(MAKE) $(jobs) VARIANT=fuzz fuzzers; }

# ---- targets for people; the sentences behind ## are `make help` -----------------------------------------------------

.PHONY: all serve test check check-kill check-faults check-long check-sim soak fuzz debug bench deps deps-test deps-lint model lint format coverage clean help
.PHONY: tests benches fuzzers

PROGRAMS := $(if $(wildcard coordinator/main.c),$(BIN)/quire) $(if $(wildcard worker/main.c),$(BIN)/quire-worker)

all: $(PROGRAMS) ## Builds build/quire and build/quire-worker.

# MODEL is a name that tools/fetch_model.py knows, or the path of a file.
model_is_path = $(filter %.gguf,$(MODEL))$(findstring /,$(MODEL))
model_file = $(if $(model_is_path),$(MODEL),models/$(MODEL).gguf)

serve: ## Installs, builds, gets the model and serves it on 127.0.0.1:8080; MODEL=, PORT= and ARGS= override.
	@$(MAKE) deps
	@$(MAKE) $(jobs) all
	@$(MAKE) model
	@exec $(BUILD)/quire serve -m $(model_file) $(if $(filter smollm2,$(MODEL)),--alias SmolLM2-135M-Instruct) --port $(PORT) $(ARGS)

test: ## Runs every test after installing and building what it needs; its last line counts passed and failed.
	@{ $(MAKE) deps && $(MAKE) deps-test && $(MAKE) $(jobs) all tests && $(with_faults) && $(with_fuzzers) && $(MAKE) model; } || \
	    { echo "0 passed, 1 failed"; exit 1; }
	@python3 tests/run_tests.py --build $(BIN) --programs $(TESTS)

check: tests ## Runs the unit and kernel tests only, in seconds; SAN=address, undefined or thread watches them.
	@python3 tests/run_tests.py --build $(BIN) --only-programs $(if $(SAN),--program-limit 900) --programs $(TESTS)

check-kill: ## Kills workers and coordinator at every fault point in every phase; each time the same bytes must come.
	@$(MAKE) $(jobs) all
	@$(with_faults)
	@QUIRE_LONG=1 QUIRE_ROOT=$(CURDIR) QUIRE_BUILD=$(abspath $(BUILD)) tests/faults/run_kill $(ARGS)

check-faults: ## Lets the nth allocation, descriptor, mapping, process, send and receive fail, at start and while serving.
	@$(MAKE) $(jobs) all $(OUT)/tests/faults/nth_call.so
	@QUIRE_LONG=1 QUIRE_ROOT=$(CURDIR) QUIRE_BUILD=$(abspath $(BUILD)) tests/faults/run_faults $(ARGS)

check-sim: $(OUT)/tests/unit/test_scheduler_lives ## Lives N lives of the scheduler in a made-up world, each from a seed that it prints.
	@QUIRE_LIVES=$(N) QUIRE_ROOT=$(CURDIR) $(abspath $<)

soak: ## Kills, stops and starts a server again under load for T=3600 seconds, compares every token, records it in tests/results/.
	@$(MAKE) $(jobs) all
	@$(MAKE) model
	@QUIRE_LONG=1 QUIRE_ROOT=$(CURDIR) QUIRE_BUILD=$(abspath $(BUILD)) tests/multiprocess/run_soak --seconds $(soak_seconds) \
	    --record tests/results/$(shell date +%F)-soak $(ARGS)

fuzz: ## Feeds each parser inputs that grow from its corpus, T=60 seconds each; wants clang.
	@$(MAKE) deps-lint
	@$(MAKE) $(jobs) VARIANT=fuzz fuzzers
	@QUIRE_FUZZ_SECONDS=$(T) QUIRE_ROOT=$(CURDIR) QUIRE_BUILD=$(abspath $(BUILD)) tests/fuzz/run_fuzz $(ARGS)

check-long: ## Runs the unit tests under each sanitizer, then every suite in its long form.
	@$(MAKE) deps
	@$(MAKE) deps-test
	@$(MAKE) model
	@for san in address undefined thread; do echo "== $$san sanitizer" && $(MAKE) $(jobs) check SAN=$$san || exit 1; done
	@$(MAKE) $(jobs) all tests
	@$(with_faults)
	@$(with_fuzzers)
	@QUIRE_LONG=1 python3 tests/run_tests.py --build $(BIN) --programs $(TESTS)

debug: ## Builds both programs for gdb under build/debug.
	@$(MAKE) VARIANT=debug all

bench: ## Measures the engine and the server with the peer beside them in the same run, and ends with a table.
	@$(MAKE) deps
	@$(MAKE) $(jobs) all benches
	@$(MAKE) model
	@QUIRE_BUILD=$(abspath $(BUILD)) python3 bench/run_bench.py $(ARGS)

deps: ## Installs the system packages that the build lacks and says which; does nothing when all are there.
	@tools/install_packages.sh build

deps-test: ## Installs what only the tests need: the browser of the page's tests.
	@tools/install_packages.sh test

deps-lint: ## Installs what only lint and coverage need: clang, clang-format, cppcheck, lcov.
	@tools/install_packages.sh lint

model: ## Puts the default model under models/, checked by its SHA-256, downloaded only once; MODEL=name picks another.
	@$(if $(model_is_path),test -e '$(MODEL)' || { echo 'there is no model at $(MODEL)' >&2; exit 1; },\
	    python3 tools/fetch_model.py '$(MODEL)')

lint: ## Checks include arrows and house rules, warnings under gcc and clang, formatting, and runs cppcheck.
	@$(MAKE) deps-lint
	@BUILD=$(BUILD) tools/lint.sh

format: ## Formats all C files as .clang-format says.
	@git ls-files --cached --others --exclude-standard '*.c' '*.h' | xargs -r clang-format -i

coverage: ## Prints which share of each file's lines the unit tests reach.
	@$(MAKE) deps-lint
	@BUILD=$(BUILD) tools/coverage.sh

clean: ## Removes build/; models stay.
	rm -rf $(BUILD)

help: ## Says this.
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | \
	    while IFS=$$'\t' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

tests: $(TESTS) $(OUT)/tests/faults/nth_call.so

fuzzers: $(FUZZERS)

benches: $(BENCHES)

# ---- rules -----------------------------------------------------------------------------------------------------------

# Another compiler, other flags or the loss of a source leave no trace in time stamps. A file that holds them does: it
# is written anew only when its text changes.
define remember
$(1): FORCE
	@$$(shell mkdir -p $$(@D))$$(file >$$@.now,$$(strip $(2))) cmp -s $$@.now $$@ || cp $$@.now $$@; rm -f $$@.now
endef
.PHONY: FORCE
$(eval $(call remember,$(OUT)/flags,$$(COMPILE) $$(LINK)))

# Each kernel set is compiled for its instructions and nothing else is: it runs only where the processor has them.
ifeq ($(MACHINE),x86_64)
AVX512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c -mavx2
$(OUT)/model/kernels/%_avx2.o: private isa_flags := -mavx2 -mfma -mf16c
$(OUT)/model/kernels/%_avx512.o: private isa_flags := $(AVX512)
$(OUT)/model/kernels/%_amx.o: private isa_flags := $(AVX512) -mamx-tile -mamx-int8
endif

# No fuzz target reaches a kernel, and clang takes minutes to watch one.
ifeq ($(VARIANT),fuzz)
$(OUT)/model/kernels/%.o: private variant_flags :=
endif

$(OUT)/%.o: %.c $(OUT)/flags | $(generated_headers)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(COMPILE) -o $@ $<

# Generated code keeps its makers' style.
$(OUT)/gen/%.o: private WARNINGS := -w
$(OUT)/gen/%.o: $(GEN)/%.c $(OUT)/flags | $(generated_headers)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(COMPILE) -o $@ $<

$(protos:%.proto=$(GEN)/%.pb-c.c) $(proto_headers) &: $(protos)
	@mkdir -p $(GEN)
	@echo "  PROTO $^"
	@protoc-c --c_out=$(GEN) $^

$(GEN)/web_assets.c $(GEN)/web_assets.h &: $(web_files) tools/embed_files.py
	@mkdir -p $(GEN)
	@echo "  EMBED coordinator/web"
	@python3 tools/embed_files.py --prefix web_ --output $(GEN)/web_assets $(web_files)

$(rust_library): $(rust_sources)
	@echo "  CARGO model/jinja"
	@$(CARGO) build --quiet --locked --release --manifest-path model/jinja/Cargo.toml --target-dir $(CARGO_TARGET)
	@touch $@

# An archive is remade whole: a renamed or removed source leaves no stale member.
define archive
$(call remember,$(OUT)/$(1).members,$(2))
$(OUT)/$(1).a: $(2) $(OUT)/$(1).members
	@rm -f $$@.new && ar rcsD $$@.new $(2) && mv $$@.new $$@
endef
$(eval $(call archive,engine,$(library_objects)))
$(eval $(call archive,coordinator,$(coordinator_objects)))
$(eval $(call archive,worker,$(worker_objects)))
$(eval $(call archive,support,$(support_objects)))

engine := $(OUT)/engine.a $(rust_library)

$(BIN)/quire: $(OUT)/coordinator/main.o $(OUT)/coordinator.a $(engine)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $^ $(LIBS)

$(BIN)/quire-worker: $(OUT)/worker/main.o $(OUT)/worker.a $(engine)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $^ $(LIBS)

$(TESTS): $(OUT)/%: $(OUT)/%.o $(OUT)/support.a $(OUT)/coordinator.a $(OUT)/worker.a $(engine)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $< -Wl,--start-group $(filter-out $<,$^) -Wl,--end-group $(LIBS) -lcmocka

# What tests/faults/run_faults puts between the programs and libc.
$(OUT)/tests/faults/nth_call.so: tests/faults/nth_call.c $(OUT)/flags
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LANGUAGE) $(WARNINGS) -O2 -g -fPIC -shared -o $@ $< -ldl

$(BENCHES): $(OUT)/%: $(OUT)/%.o $(engine)
	@echo "  LINK  $@"
	@$(LINK) -o $@ $^ $(LIBS)

$(FUZZERS): $(OUT)/%: $(OUT)/%.o $(OUT)/coordinator.a $(engine)
	@echo "  LINK  $@"
	@$(LINK) -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(filter-out $<,$^) -Wl,--end-group $(LIBS)

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
