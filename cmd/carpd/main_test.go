// Package main_test are the promises of carpd as a whole: the real binary on the
// real kernel, each test on a LAN of its own made of network namespaces. Most
// have two nodes, a and b, and a client that asks the shared addresses.
package main_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/carpd/carpd/test/lab"
)

// maxParallel is how many LANs are alive at once. The tests wait for protocol
// timers nearly all the time, so the number of CPUs says little.
const maxParallel = "4"

func TestMain(m *testing.M) {
	if raceDetector { // a daemon with it would sleep for a second before it ends
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", maxParallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	lab.Main(m)
}

// built is the daemon, built at the first use and with the race detector if these
// tests have it. The file has no name any more, so nothing can be left behind.
var built = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "carpd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "carpd")
	args := []string{"build", "-o", path}
	if raceDetector {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build carpd: %w\n%s", err, out)
	}
	return os.Open(path)
})

// program returns the path of the daemon's program, for root.
func program(t testing.TB) string {
	t.Helper()
	f, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// publicProgram returns a copy that every user may run.
func publicProgram(t testing.TB) string {
	t.Helper()
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(program(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(dir, "carpd")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// tempDir is t.TempDir with a short name: it has to hold unix sockets.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "carpd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
