# carpd: run "make" for the list of targets.

# Tools are pinned here and not in go.mod: there, whoever imports our packages
# would carry their requirements.
STATICCHECK_VERSION = v0.8.2
export STATICCHECK_PACKAGE = honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
export STATICCHECK = $(CURDIR)/.tools/staticcheck-$(STATICCHECK_VERSION)/staticcheck

# Install: make install DESTDIR=/tmp/stage PREFIX=/usr
PREFIX ?= /usr/local
DESTDIR ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system

# make fuzz FUZZTIME=1m; make bench BENCH=Receive BENCHCOUNT=10; make test TIMEOUT=30m
FUZZTIME ?= 10s
BENCH ?= .
BENCHCOUNT ?= 6
TIMEOUT ?= 25m
export FUZZTIME TIMEOUT

# A Go that scripts/bootstrap fetched comes first, an official one that is
# installed but not in the PATH last. No other is ever fetched behind our back.
export PATH := $(CURDIR)/.tools/go/bin:$(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
export GOTOOLCHAIN := local

# Binaries name their revision where git can tell it.
VCS = $(if $(shell git rev-parse --verify -q HEAD 2>/dev/null),true,false)
# SQLite is C: linked in whole, so that a binary runs on any distribution, as Go's
# do. Names are looked up by Go. LDFLAGS= links against the libc of this machine.
TAGS = netgo,osusergo,sqlite_omit_load_extension
LDFLAGS ?= -linkmode external -extldflags -static
COMMANDS = $(filter carpd carpctl carplab,$(patsubst cmd/%/main.go,%,$(wildcard cmd/*/main.go)))
PAGES = $(wildcard cmd/*/*.[158])

.DELETE_ON_ERROR:
.PHONY: help build demo test race lint fuzz bench mutants install clean bootstrap bootstrap-test

help: ## print this list
	@echo "carpd: CARP in userspace. Targets:"
	@sed -n 's/^\([a-z]*\):[^#]*## /  \1\t/p' Makefile | expand -t 12

build: bootstrap ## build the commands into bin/
	CGO_ENABLED=1 go build -trimpath -buildvcs=$(VCS) -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/ $(COMMANDS:%=./cmd/%)

demo: build ## show two nodes sharing an address, in namespaces, in under a minute
	bin/carpd demo

test: bootstrap-test ## everything: vet, format, staticcheck, all tests with the race detector
	@scripts/check vet format static race

race: bootstrap-test ## only the tests, with the race detector
	@scripts/check race

lint: bootstrap-test ## only vet, format and staticcheck
	@scripts/check vet format static

fuzz: bootstrap ## each fuzz target for FUZZTIME (10s)
	@scripts/fuzz

bench: bootstrap ## benchmarks, BENCHCOUNT (6) runs each, for benchstat
	@go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCHCOUNT) -timeout 2h \
		$$(find . -name '.?*' -prune -o -name '*_test.go' -print | xargs grep -l '^func Benchmark' | xargs -n 1 dirname | sort -u)

mutants: bootstrap-test ## break the code on purpose and see the tests notice; MUTANTS=-list
	@go run ./test/mutants $(MUTANTS)

install: build ## install into $(DESTDIR)$(PREFIX): commands, manual pages, unit file
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(UNITDIR)
	install -m 0755 $(COMMANDS:%=bin/%) $(DESTDIR)$(PREFIX)/sbin/
	for page in $(PAGES); do \
		install -D -m 0644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; \
	done
	sed 's,/usr/sbin/,$(PREFIX)/sbin/,' cmd/carpd/carpd.service >$(DESTDIR)$(UNITDIR)/carpd.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/carpd.service

clean: ## remove what was built; a Go in .tools/go stays
	rm -rf bin .tools/staticcheck-* .tools/fetch .tools/*.log

bootstrap:
	@scripts/bootstrap build

bootstrap-test:
	@scripts/bootstrap test
