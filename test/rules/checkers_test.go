package rules

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// expect checks that a checker finds exactly the faults that contain the given
// words, one each.
func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %d faults, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

func TestImportFaultsFindsWhatIsForbidden(t *testing.T) {
	at := func(path string) pkg { return pkg{ImportPath: module + "/" + path} }
	for _, tc := range []struct {
		name   string
		path   string
		change func(p *pkg)
		want   []string
	}{
		{"protocol and library", "carp", func(p *pkg) { p.Imports = []string{"time", "golang.org/x/sys/unix"} }, []string{"standard library only"}},
		{"protocol and our own", "carp", func(p *pkg) { p.Imports = []string{module + "/vip"} }, []string{"standard library only"}},
		{"fakes of the protocol", "carp/carptest", func(p *pkg) { p.Imports = []string{module + "/carp", module + "/carp/link"} }, []string{"package carp only"}},
		{"link and hooks", "carp/link", func(p *pkg) { p.Imports = []string{module + "/carp", module + "/hooks"} }, []string{"vocabulary"}},
		{"vip and link", "vip", func(p *pkg) { p.Imports = []string{module + "/carp/link"} }, []string{"vocabulary"}},
		{"hooks and its own", "hooks/exec", func(p *pkg) { p.Imports = []string{module + "/hooks", module + "/carp"} }, nil},
		{"hooks and vip", "hooks/exec", func(p *pkg) { p.Imports = []string{module + "/vip/viptest"} }, []string{"vocabulary"}},
		{"product and cmd", "vip", func(p *pkg) { p.Imports = []string{module + "/cmd/daemon"} }, []string{"cmd is wiring"}},
		{"product and harness", "vip", func(p *pkg) { p.Imports = []string{module + "/test/lab"} }, []string{"no part of the product"}},
		{"cmd and harness", "cmd/daemon", func(p *pkg) { p.Imports = []string{module + "/test/lab"} }, []string{"no part of the product"}},
		{"carplab and harness", "cmd/carplab", func(p *pkg) { p.Imports = []string{module + "/test/lab"} }, nil},
		{"harness and cmd", "test/lab", func(p *pkg) { p.Imports = []string{module + "/cmd/daemon"} }, []string{"cmd is wiring", "harness serves all"}},
		{"inner test and harness", "vip", func(p *pkg) { p.TestImports = []string{module + "/test/lab"} }, []string{"external tests"}},
		{"external test and harness", "vip", func(p *pkg) { p.XTestImports = []string{module + "/test/lab"} }, nil},
		{"words of the socket", "cmd/daemon/api", func(p *pkg) { p.Imports = []string{module + "/carp"} }, []string{"standard library"}},
		{"client, directly or not", "cmd/carpctl", func(p *pkg) { p.Deps = []string{module + "/cmd/daemon/api", module + "/carp", "fmt"} }, []string{"nothing of the engine"}},
		{"similar names", "vipers", func(p *pkg) { p.Imports = []string{module + "/carp/linked", module + "/hooksy"} }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := at(tc.path)
			tc.change(&p)
			expect(t, importFaults(p), tc.want...)
		})
	}
}

func TestLibraryFaultsFindsWhatStrayed(t *testing.T) {
	for _, tc := range []struct {
		path, imports string
		want          []string
	}{
		{"vip/kernel_linux.go", `"github.com/vishvananda/netlink"`, nil},
		{"vip/worker.go", `"github.com/vishvananda/netlink/nl"`, []string{"only vip/kernel_linux.go does"}},
		{"cmd/daemon/daemon.go", `"github.com/vishvananda/netlink"`, []string{"belongs to vip, test"}},
		{"vip/lab_test.go", `"github.com/vishvananda/netlink"`, []string{"only vip/kernel_linux.go does"}},
		{"carp/engine_test.go", `"github.com/google/gopacket"`, []string{"belongs to test"}},
		{"test/lab/capture.go", `"github.com/google/gopacket/layers"`, nil},
		{"cmd/carpctl/main.go", `"go.uber.org/zap"`, []string{"behind log/slog"}},
		{"carp/engine_test.go", `"pgregory.net/rapid"`, nil},
		{"carp/engine.go", `"pgregory.net/rapid"`, []string{"properties are for tests"}},
		{"vip/x.go", `"example.org/new/thing"`, []string{"a new library needs a line"}},
		{"vip/x.go", `"fmt"; "` + module + `/carp"`, nil},
		{"vip/x.go", `"fmt`, []string{"vip/x.go"}},
	} {
		t.Run(tc.path+" "+tc.imports, func(t *testing.T) {
			expect(t, libraryFaults(source{tc.path, "package x\nimport (" + tc.imports + ")\n"}, homes()), tc.want...)
		})
	}
}

func TestStateFaultsFindsWhatChanges(t *testing.T) {
	for _, tc := range []struct {
		name, code string
		want       []string
	}{
		{"sentinel", `import "errors"; var ErrGone = errors.New("gone")`, nil},
		{"table", `var names = [...]string{"a"}; func f() string { return names[0] }`, nil},
		{"computed table", `var crc = func() (t [256]int) { t[0] = 1; return }()`, nil},
		{"assertion", `type t struct{}; var _ any = t{}; var _ any = (*t)(nil)`, nil},
		{"parsed", `import "net/netip"; var group = netip.MustParseAddr("224.0.0.18")`, nil},
		{"made once", `import ("time"; "reflect"); var zero = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC); var tt = reflect.TypeFor[int]()`, nil},
		{"embedded", "import _ \"embed\"\n//go:embed x\nvar text string", nil},
		{"shadowed", `var names = []string{"a"}; func f() { names := []string{"b"}; names[0] = "c" }`, nil},
		{"registry", `var registry struct{ kinds map[string]int }; func f() { registry.kinds = nil }`, nil},
		{"counter", `var n int; func f() { n++ }`, []string{"no value of its own", "written to"}},
		{"lock", `import "sync"; var mu sync.Mutex`, []string{"no value of its own"}},
		{"lock in a table", `import "sync"; var t = []sync.Mutex{{}}`, []string{"pointer, lock or channel"}},
		{"pointer", `type t struct{}; var x = &t{}`, []string{"neither a sentinel"}},
		{"pointer in a table", `type t struct{}; var x = []*t{&t{}}`, []string{"pointer, lock or channel"}},
		{"channel", `var c = make(chan int)`, []string{"a call that may return state"}},
		{"made map", `var m = make(map[string]int)`, []string{"a call that may return state"}},
		{"written map", `var m = map[string]int{}; func f() { m["a"] = 1 }`, []string{"m is written to"}},
		{"deleted from", `var m = map[string]int{}; func f() { delete(m, "a") }`, []string{"m is written to"}},
		{"appended to", `var l = []int{}; func f() { l = append(l, 1) }`, []string{"l is written to"}},
		{"lent out", `var t = [2]int{}; func f() *int { return &t[0] }`, []string{"t is written to"}},
		{"method", `type c struct{ n int }; func (c *c) inc() { c.n++ }; var x = c{}; func f() { x.inc() }`, []string{"x is written to"}},
		{"exported table", `var Names = []string{"a"}`, []string{"an exported table"}},
		{"switch", `var Debug = false`, []string{"a plain value"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect(t, stateFaults("p", []source{{"p/p.go", "package hooks\n" + tc.code + "\n"}}), tc.want...)
		})
	}
	other := []source{{"p/p.go", "package vip\nvar registry struct{ n int }\n"}}
	expect(t, stateFaults("p", other), "no value of its own")
}

func TestDocFaultsFindsWhatHasNoComment(t *testing.T) {
	const head = "// Package p is.\npackage p\n"
	for _, tc := range []struct {
		name, code string
		want       []string
	}{
		{"no package comment", "package p\n", []string{"the package has no comment"}},
		{"function", head + "func F() {}\nfunc g() {}", []string{"F has no comment"}},
		{"documented function", head + "// F does.\nfunc F() {}", nil},
		{"method", head + "type t int\nfunc (t) M() {}\n// T is.\ntype T int\nfunc (*T) M() {}\nfunc (T) String() string { return \"\" }", []string{"M has no comment"}},
		{"generic method", head + "// T is.\ntype T[A any] int\nfunc (*T[A]) M() {}", []string{"M has no comment"}},
		{"type", head + "type T int", []string{"T has no comment"}},
		{"type in a group", head + "// Types.\ntype (\n\tT int\n)", []string{"T has no comment"}},
		{"constant", head + "const C = 1", []string{"C has no comment"}},
		{"enum", head + "// The states.\nconst (\n\tA = iota\n\tB\n)", nil},
		{"constant with an end", head + "const (\n\tA = 1 // is\n\tB = 2\n)", []string{"B has no comment"}},
		{"variable", head + "var V = 1", []string{"V has no comment"}},
		{"interface", head + "// I is.\ntype I interface {\n\t// A does.\n\tA()\n\tB()\n}", []string{"I.B has no comment"}},
		{"small interface", head + "// I is.\ntype I interface{ A() }", nil},
		{"command", "// Command x.\npackage main\nfunc Exported() {}", nil},
		{"broken", "package", []string{"expected"}},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, docFaults("p", []source{{"p/p.go", tc.code}}), tc.want...) })
	}
}

func TestTextFaultsAreFound(t *testing.T) {
	f := func(text string) source { return source{"p/p_test.go", text} }
	expect(t, formatFaults(f("package p\n")))
	expect(t, formatFaults(f("package  p\n")), "gofmt -w")
	expect(t, formatFaults(f("package p\nfunc {\n")), "expected")
	expect(t, lengthFaults(f(strings.Repeat("\n", maxLines))))
	expect(t, lengthFaults(f(strings.Repeat("\n", maxLines+1))), "601 lines")
	expect(t, markerFaults(f("a\n// FIX"+"ME later\n// TO"+"DOs and mktemp XX"+"XXXX are words of their own\n")), ":2: FIX"+"ME")
	sleep := "package p\nimport %%%\"time\"\nfunc f() { $.Sleep(1); time.After(1) }\n"
	with := func(alias, name string) source {
		return f(strings.NewReplacer("%%%", alias, "$", name).Replace(sleep))
	}
	expect(t, sleepFaults(with("", "time")), "time.Sleep in a test")
	expect(t, sleepFaults(with("clock ", "clock")), "time.Sleep in a test")
	expect(t, sleepFaults(with("", "bed")))
	expect(t, sleepFaults(with("\"testing/synctest\"\nimport ", "time")))
	expect(t, sleepFaults(with("\"testing/synctest\"\nimport \"os/exec\"\nimport ", "time")), "time.Sleep in a test")
	expect(t, sleepFaults(f("package p\nfunc f() { time.Sleep(1) }\n")))
}

func TestTrackedFaultsFindsWhatWasBuilt(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "program", "\x7fELF\x02")
	write(t, dir, "dump", strings.Repeat("x", maxTracked+1))
	write(t, dir, "text", "hello")
	write(t, dir, "empty", "")
	for name, want := range map[string][]string{"program": {"built"}, "dump": {"bytes"}, "text": nil, "empty": nil, "gone": nil} {
		expect(t, trackedFaults(dir, name), want...)
	}
}

func TestMissingWordsWantsAWordSetApart(t *testing.T) {
	page := ".Sh REFUSALS\n.It Cm bow-out\nThe hash is wrong.\n.\\\" comment ttl\n" +
		".TP\n\\fBchecksum\\fR\nwrong\n.TP 4\nlength\nshort\n" +
		"see \\fBno\\-peer\\fR, .\n.BR own ,\n.It Cm frame , family\n"
	want := []string{"bow-out", "hash", "ttl", "checksum", "length", "no-peer", "own", "frame", "family", "short"}
	if got := MissingWords(page, want); !slices.Equal(got, []string{"hash", "ttl", "short"}) {
		t.Errorf("missing are %v", got)
	}
}

func TestSourcesLeavesOutWhatPeopleDoNotWrite(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.go", ".ci/run", ".tools/x", "bin/y", "p/testdata/z", "p/q.txt"} {
		write(t, dir, name, "text")
	}
	write(t, dir, "binary", "a\x00b")
	all, err := sources(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range all {
		got = append(got, f.path)
	}
	if want := []string{".ci/run", "a.go", "p/q.txt"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
