package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
)

// TB is what a LAN needs of a test. *testing.T and *testing.B are such; a program
// that is no test gets one from Run.
type TB interface {
	// Helper marks the caller as one whose line says nothing.
	Helper()
	// Name names the test; captures are named after it.
	Name() string
	// Cleanup calls f when the test is over, the last one first.
	Cleanup(f func())
	// TempDir makes a directory that goes with the test.
	TempDir() string
	// Failed reports whether Error or Fatal was called.
	Failed() bool
	// Log says something, with spaces in between.
	Log(args ...any)
	// Logf is Log with a format.
	Logf(format string, args ...any)
	// Error is Log, and the test has failed; it goes on.
	Error(args ...any)
	// Errorf is Error with a format.
	Errorf(format string, args ...any)
	// Fatal is Error, and ends the goroutine, which is to be the test's.
	Fatal(args ...any)
	// Fatalf is Fatal with a format.
	Fatalf(format string, args ...any)
	// Skip ends the goroutine as Fatal does, and the test has not failed.
	Skip(args ...any)
	// Skipf is Skip with a format.
	Skipf(format string, args ...any)
}

// ErrSkipped is in the error of a Run that was skipped, most often because no
// namespace can be made here: a command exits with 77 then.
var ErrSkipped = errors.New("skipped")

// Run calls f as a test that is named name, outside of `go test`, and returns
// when f and all that it left for Cleanup have ended: nil if it passed, ErrSkipped
// with the reason, or an error with all that was said of failures. log gets each
// line that is logged, also those of errors, from any goroutine but one at a time;
// nil is silent. A panic of f goes on in the caller, after the cleanup.
func Run(name string, log func(line string), f func(t TB)) error {
	if log == nil {
		log = func(string) {}
	}
	r := &run{name: name, log: log}
	defer r.clean() // in the end, for what a panicking cleanup has left
	if p := r.call(func() { f(r) }); p != nil {
		r.clean()
		panic(p)
	}
	r.clean()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.errs) > 0:
		return fmt.Errorf("lab: %s failed: %s", name, strings.Join(r.errs, "; "))
	case r.skipped != "":
		return fmt.Errorf("lab: %s %w: %s", name, ErrSkipped, r.skipped)
	}
	return nil
}

// run is the TB of one Run.
type run struct {
	name string

	mu       sync.Mutex
	log      func(string)
	cleanups []func()
	errs     []string
	skipped  string
}

// call calls f on a goroutine that Fatal can end, and returns what f panicked with.
func (r *run) call(f func()) (panicked any) {
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		f()
	}()
	return <-done
}

// clean runs what was left for Cleanup, the last first.
func (r *run) clean() {
	for {
		r.mu.Lock()
		n := len(r.cleanups)
		if n == 0 {
			r.mu.Unlock()
			return
		}
		f := r.cleanups[n-1]
		r.cleanups = r.cleanups[:n-1]
		r.mu.Unlock()
		if p := r.call(f); p != nil {
			panic(p)
		}
	}
}

func (r *run) say(failed bool, text string) {
	text = strings.TrimSuffix(text, "\n")
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed {
		r.errs = append(r.errs, text)
	}
	r.log(text)
}

func (r *run) Helper()      {}
func (r *run) Name() string { return r.name }

func (r *run) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *run) TempDir() string {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (r *run) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.errs) > 0
}

func (r *run) Log(args ...any)                   { r.say(false, fmt.Sprintln(args...)) }
func (r *run) Logf(format string, args ...any)   { r.say(false, fmt.Sprintf(format, args...)) }
func (r *run) Error(args ...any)                 { r.say(true, fmt.Sprintln(args...)) }
func (r *run) Errorf(format string, args ...any) { r.say(true, fmt.Sprintf(format, args...)) }

func (r *run) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *run) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *run) Skip(args ...any) { r.Skipf("%s", strings.TrimSuffix(fmt.Sprintln(args...), "\n")) }

func (r *run) Skipf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.skipped = text
	r.mu.Unlock()
	r.Logf("skipped: %s", text)
	runtime.Goexit()
}
