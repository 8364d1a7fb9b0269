package script

import (
	"context"
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
			r := Play(t.Context(), path, o.Kernel)
			r.Repeat = fmt.Sprintf("go test -run '^%s$'", t.Name())
			if o.Rewrite && r.Rewrites && r.Err == nil && len(r.Faults) > 0 {
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

// Read reads and parses a file.
func Read(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("script: read scenario: %w", err)
	}
	return Parse(path, string(text))
}

// Play reads a file and plays it as PlayFile does.
func Play(ctx context.Context, path string, kernel *KernelOptions) Result {
	f, err := Read(path)
	if err != nil {
		return Result{File: path, Err: err, Repeat: "carplab run " + path}
	}
	return PlayFile(ctx, f, kernel)
}

// PlayFile plays a scenario: in the simulator, or with options on the kernel until
// ctx ends.
func PlayFile(ctx context.Context, f *File, kernel *KernelOptions) (r Result) {
	if kernel == nil {
		r = Simulate(f)
		r.Repeat = "carplab run " + f.Name
		return r
	}
	r = OnKernel(ctx, f, *kernel)
	r.Repeat = "carplab run --kernel " + f.Name
	return r
}
