// Command mutants breaks carpd on purpose, one fault at a time, and tells which
// tests notice: a test that cannot fail protects nothing.
//
//	go run ./test/mutants                 # hand mutants and 30 mechanical ones
//	go run ./test/mutants -all            # every mechanical mutant
//	go run ./test/mutants -level sim      # only what the simulator alone notices
//	go run ./test/mutants -list
//
// A hand mutant is a fault that somebody could make, written down in hand.go; if
// the text that it replaces is gone, the run fails, so that the list cannot rot. A
// mechanical one is made by an operator (another comparison, a constant one
// greater, a statement dropped...) at one place of the engine or the codec; which
// of them run is drawn by -seed, and stays the same when other lines change.
//
// Each mutant gets a copy of the tree of its own in a temporary directory, which is
// removed at the end; the working tree is read once, at the start. The levels
// of tests that are meant to notice run cheapest first and stop at the first that
// fails. A test that hangs is killed and has noticed. What the simulator and the
// exploration notice is told for every mutant of the protocol, whatever the unit
// tests say. Before all, the levels run once without a mutant and must pass.
//
// Exit code: 0 every mutant was noticed, or is explained in explained.go; 1 one
// survived, or an explanation or a hand mutant fits no more; 2 usage.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	mechanical int
	all        bool
	seed       uint64
	only       *regexp.Regexp
	level      string
	seeds      int
	parallel   int
	list       bool
	keep       bool
	markdown   string
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2) // flag has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, o)
	stop()
	os.Exit(code)
}

func parse(args []string) (options, error) {
	o := options{}
	f := flag.NewFlagSet("mutants", flag.ContinueOnError)
	f.IntVar(&o.mechanical, "mechanical", 30, "run `n` mechanical mutants")
	f.BoolVar(&o.all, "all", false, "run all mechanical mutants")
	f.Uint64Var(&o.seed, "seed", 1, "which mechanical mutants are drawn")
	only := f.String("only", "", "run only mutants whose name matches this `regexp`, mechanical ones among all that there are")
	f.StringVar(&o.level, "level", "all", "`all`; tests: no column of the simulator alone; sim: nothing else; "+
		"or some of "+strings.Join(levelNames(), ","))
	f.IntVar(&o.seeds, "seeds", 300, "seeds of the soak")
	f.IntVar(&o.parallel, "parallel", min(2, runtime.NumCPU()), "mutants at a time")
	f.BoolVar(&o.list, "list", false, "list the mutants and run nothing")
	f.BoolVar(&o.keep, "keep", false, "keep the temporary directory")
	f.StringVar(&o.markdown, "markdown", "", "write the table also to this `file`")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	fault := func(err error) (options, error) {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		return o, err
	}
	if f.NArg() > 0 {
		return fault(fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	if _, err := choose(o.level, o.seeds); err != nil {
		return fault(err)
	}
	var err error
	if *only != "" {
		if o.only, err = regexp.Compile(*only); err != nil {
			return fault(err)
		}
	}
	o.parallel = max(o.parallel, 1)
	return o, nil
}

// run does everything and returns the exit code.
func run(ctx context.Context, o options) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		return 1
	}
	root, err := moduleRoot()
	if err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return fail(err)
	}
	if o.keep {
		fmt.Fprintln(os.Stderr, "mutants: working in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	b, err := newBench(ctx, root, dir)
	if err != nil {
		return fail(err)
	}
	mutants, err := collect(b.tree, o)
	if err != nil {
		return fail(err)
	}
	if o.list {
		for _, m := range mutants {
			fmt.Printf("%s\n\t%s\n", m.name, m.what)
		}
		return 0
	}
	levels, err := choose(o.level, o.seeds)
	if err != nil {
		return fail(err)
	}
	began := time.Now()
	if levels, err = b.baseline(ctx, levels, mutants); err != nil {
		return fail(err)
	}
	mutants = meant(levels, mutants)
	results := b.all(ctx, levels, mutants, o.parallel)
	if ctx.Err() != nil {
		return fail(errors.New("interrupted"))
	}
	r := report{results: results, levels: levels, took: time.Since(began), sim: o.level == "sim", command: "go run ./test/mutants " + strings.Join(os.Args[1:], " ")}
	fmt.Print(r.text())
	if o.markdown != "" {
		if err := os.WriteFile(o.markdown, []byte(r.page()), 0o666); err != nil {
			return fail(err)
		}
	}
	if faults := r.faults(); len(faults) > 0 && !r.sim {
		return fail(errors.New(strings.Join(faults, "\nmutants: ")))
	}
	return 0
}

// collect makes the mutants that the options ask for.
func collect(tree string, o options) ([]mutant, error) {
	hand := handMutants()
	var faults []error
	for _, m := range hand {
		if _, err := m.apply(tree); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	mechanical, err := generate(tree, engineFiles())
	if err != nil {
		return nil, err
	}
	if err := stale(hand, mechanical); err != nil {
		return nil, err
	}
	switch {
	case o.only != nil:
		var some []mutant
		for _, m := range append(hand, mechanical...) {
			if o.only.MatchString(m.name) {
				some = append(some, m)
			}
		}
		return compiling(tree, some, len(some))
	case o.all:
		mechanical, err = compiling(tree, mechanical, len(mechanical))
	default:
		mechanical, err = compiling(tree, draw(mechanical, o.seed), o.mechanical)
	}
	return append(hand, mechanical...), err
}

// stale reports explanations of mutants that there are no more.
func stale(hand, mechanical []mutant) error {
	known := map[string]bool{}
	for _, m := range append(hand[:len(hand):len(hand)], mechanical...) {
		known[m.name] = true
	}
	var faults []error
	for name := range explained {
		if !known[name] {
			faults = append(faults, fmt.Errorf("explained.go: there is no mutant %q any more: take its explanation out", name))
		}
	}
	return errors.Join(faults...)
}

// moduleRoot returns the directory of go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(dir + "/go.mod"); missing == nil {
			return dir, nil
		}
		up := dir[:max(strings.LastIndexByte(dir, '/'), 0)]
		if up == "" {
			err = errors.New("find go.mod: none above the working directory")
		}
		dir = up
	}
	return "", cmp.Or(err, errors.New("find go.mod"))
}
