package script

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOptions say how Test plays.
type TestOptions struct {
	Kernel  *KernelOptions // nil: in the simulator
	Rewrite bool           // write what came out into the files that are not as written
}

// Test plays every file that glob names as a subtest, in parallel. Those that make
// no sense on the backend are skipped, and it fails if there is no file at all.
func Test(t *testing.T, glob string, o TestOptions) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("script: no file is named %s (%v)", glob, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			t.Parallel()
			r := Play(path, o.Kernel)
			r.Repeat = fmt.Sprintf("go test ./%s -run '^%s$'", "test/scenarios", t.Name())
			if o.Rewrite && r.Err == nil && r.Skipped == "" && len(r.Faults) > 0 {
				if err := os.WriteFile(path, []byte(r.Text), 0o644); err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: written anew", path)
				return
			}
			if r.Skipped != "" {
				t.Skip(r.Skipped)
			}
			if !r.OK() {
				t.Fatal(r.Report())
			}
		})
	}
}

// Play reads a file and plays it: in the simulator, or with options on the kernel.
func Play(path string, kernel *KernelOptions) Result {
	text, err := os.ReadFile(path)
	if err != nil {
		return Result{File: path, Err: fmt.Errorf("script: read scenario: %w", err)}
	}
	f, err := Parse(path, string(text))
	if err != nil {
		return Result{File: path, Err: err}
	}
	if kernel != nil {
		return OnKernel(f, *kernel)
	}
	return Simulate(f)
}
