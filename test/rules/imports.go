package rules

import (
	"fmt"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// within reports whether path is dir or lies below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func withinAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return within(path, d) })
}

// own returns the path of an import relative to the module; ok is false if it
// belongs to somebody else.
func own(imp string) (rel string, ok bool) {
	return strings.TrimPrefix(imp, module+"/"), strings.HasPrefix(imp, module+"/")
}

// isStandard reports whether the import is of the standard library: the first
// element of all others is a host name.
func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// islands returns the directories that share the vocabulary of package carp and
// nothing else.
func islands() []string { return []string{"carp/link", "vip", "hooks", "replicator", "track"} }

// island returns the one that a package belongs to, or "".
func island(path string) string {
	for _, dir := range islands() {
		if within(path, dir) {
			return dir
		}
	}
	return ""
}

// restoring lists the kinds of hooks that put snapshots in place at a promotion: to them
// alone of their island the replicator is a tool, as a program that they run would be.
func restoring() []string { return []string{"hooks/database", "hooks/proxysql", "hooks/sqlite"} }

// importFaults checks the imports between our own packages (section "Layout" of
// the design).
func importFaults(p pkg) []string {
	var faults []string
	from := p.path()
	fault := func(imp, why string) {
		faults = append(faults, fmt.Sprintf("%s imports %s: %s", from, imp, why))
	}
	for _, imp := range p.Imports {
		rel, ours := own(imp)
		if from == "carp" && !isStandard(imp) {
			fault(imp, "the protocol needs the standard library only, so that anybody can embed it")
		}
		if within(from, "carp/carptest") && ours && rel != "carp" {
			fault(imp, "the fakes of package carp need package carp only")
		}
		if !ours {
			continue
		}
		if a, b := island(from), island(rel); a != "" && b != "" && a != b && !(withinAny(from, restoring()) && b == "replicator") {
			fault(imp, "what they share is the vocabulary of package carp; cmd wires them together")
		}
		if within(rel, "cmd") && !within(from, "cmd") {
			fault(imp, "cmd is wiring: nothing else may depend on it")
		}
		if within(rel, "test") && !within(from, "test") && !within(from, "cmd/carplab") {
			fault(imp, "the harness is no part of the product")
		}
		if within(from, "test") && within(rel, "cmd") {
			fault(imp, "the harness serves all; only its external tests may know the commands")
		}
		if within(from, "cmd/daemon/api") {
			fault(imp, "a client of the control socket needs the standard library only")
		}
	}
	for _, imp := range p.TestImports {
		if rel, ours := own(imp); ours && within(rel, "test") && !within(from, "test") && !within(from, "cmd") {
			fault(imp, "only external tests (package name_test) use the harness: it may come to import what it tests")
		}
	}
	if within(from, "cmd/carpctl") {
		for _, imp := range p.Deps {
			if rel, ours := own(imp); ours && !within(rel, "cmd/carpctl") && !within(rel, "cmd/daemon/api") {
				fault(imp, "carpctl knows the control socket and nothing of the engine")
			}
		}
	}
	return faults
}

// home says where a library of others may be imported.
type home struct {
	library string   // import path, with what lies below
	dirs    []string // relative to the module
	tests   bool     // in test files everywhere, too
	file    string   // if set: inside of dirs[0], only in this one file
	reason  string
}

// homes lists all libraries of others. A new one needs a line here.
func homes() []home {
	return []home{
		{"golang.org/x/sys", []string{"carp/link", "vip", "hooks", "track", "replicator", "cmd", "test"}, true, "", "package carp itself is portable"},
		{"golang.org/x/crypto", []string{"replicator/ssh", "replicator/modules/mesh", "test"}, true, "", "one package reaches other nodes to ship to them, one is reached by them as well, and both see that they are who they should be"},
		{"github.com/pkg/sftp", []string{"replicator/sftp"}, false, "", "one way to ship snapshots"},
		{"github.com/klauspost/compress", []string{"replicator/receive", "replicator/modules/mesh"}, false, "", "what goes to other nodes in few bytes: snapshots, and the content of modules"},
		{"golang.org/x/net", []string{"carp/link", "vip", "track", "test"}, true, "", "sockets are the business of links, addresses and probes"},
		{"github.com/vishvananda/netlink", []string{"vip", "test"}, false, "kernel_linux.go", "behind vip.Kernel, so that it can be faked and replaced"},
		{"github.com/google/nftables", []string{"vip"}, false, "fence_rules_linux.go", "behind vip.Fence; of it only the encoding of rules"},
		{"github.com/vishvananda/netns", []string{"test"}, false, "", "namespaces are for tests"},
		{"github.com/google/gopacket", []string{"test"}, false, "", "it panics on short packets and takes CARP for VRRP: product code has its own decoder"},
		{"github.com/mattn/go-sqlite3", []string{"replicator/sqlite", "test/peers/proxysqlstub"}, false, "", "the one place of cgo; all others ask package replicator/sqlite, but ProxySQL stands on SQLite itself"},
		{"go.uber.org/zap", []string{"cmd/daemon"}, false, "", "behind log/slog, so that embedders need not take it"},
		{"github.com/spf13/cobra", []string{"cmd"}, false, "", "command lines are wiring"},
		{"github.com/spf13/pflag", []string{"cmd"}, false, "", "command lines are wiring"},
		{"github.com/goccy/go-yaml", []string{"cmd/daemon"}, false, "", "one place decodes, strictly"},
		{"github.com/coreos/go-systemd/v22", []string{"cmd/daemon", "hooks/systemd"}, false, "", "readiness is the daemon's, units are one kind of hook"},
		{"github.com/godbus/dbus/v5", []string{"hooks/systemd"}, false, "", "what go-systemd calls systemd with"},
		{"example.org/acme/carp-slack", []string{"test/thirdparty"}, false, "", "the kind of somebody else's, which is a module of its own there"},
		{"github.com/go-sql-driver/mysql", []string{"hooks/mysql", "hooks/mysqlcheck", "hooks/galera", "hooks/proxysql", "replicator/proxysql", "replicator/modules/admin", "test"}, true, "", "databases are the business of kinds of hooks, and ProxySQL of its source and of who keeps its modules"},
		{"github.com/prometheus", []string{"cmd/daemon/metrics"}, false, "", "metrics are made of the status, in one place"},
		{"pgregory.net/rapid", []string{"test"}, true, "", "properties are for tests"},
	}
}

// libraryFaults checks which library one file imports. Tests of the commands
// may not widen what the commands themselves use.
func libraryFaults(f source, all []home) []string {
	parsed, err := parser.ParseFile(token.NewFileSet(), f.path, f.text, parser.ImportsOnly)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", f.path, err)}
	}
	var faults []string
	dir := path.Dir(f.path)
	for _, spec := range parsed.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if _, ours := own(imp); err != nil || ours || isStandard(imp) || imp == module {
			continue
		}
		i := slices.IndexFunc(all, func(h home) bool { return within(imp, h.library) })
		if i < 0 {
			faults = append(faults, fmt.Sprintf("%s imports %s: a new library needs a line in homes and a reason in its commit", f.path, imp))
			continue
		}
		h := all[i]
		switch {
		case f.isGoTest() && h.tests:
		case !withinAny(dir, h.dirs):
			faults = append(faults, fmt.Sprintf("%s imports %s: it belongs to %s: %s", f.path, imp, strings.Join(h.dirs, ", "), h.reason))
		case h.file != "" && within(dir, h.dirs[0]) && f.path != h.dirs[0]+"/"+h.file:
			faults = append(faults, fmt.Sprintf("%s imports %s: only %s/%s does: %s", f.path, imp, h.dirs[0], h.file, h.reason))
		}
	}
	return faults
}
