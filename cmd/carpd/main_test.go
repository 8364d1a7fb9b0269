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
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// maxParallel is how many LANs are alive at once. The tests wait for protocol
// timers nearly all the time, so the number of CPUs says little.
const maxParallel = "4"

func TestMain(m *testing.M) {
	proxysqlstub.Enter()
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

// build builds a program. The file has no name any more, so nothing can be left
// behind.
func build(name, pkg string, race bool) (*os.File, error) {
	dir, err := os.MkdirTemp("", "carpd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, name)
	args := []string{"build", "-o", path}
	if race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return os.Open(path)
}

// Each program is built at its first use, with the race detector if these tests have
// it. That makes the daemon some ten times slower: where the promise is about how much
// it can do, the test takes the one that is delivered.
var (
	carpd     = sync.OnceValues(func() (*os.File, error) { return build("carpd", ".", raceDetector) })
	carpctl   = sync.OnceValues(func() (*os.File, error) { return build("carpctl", "../carpctl", raceDetector) })
	delivered = sync.OnceValues(func() (*os.File, error) { return build("carpd", ".", false) })
)

// program returns the path of a program that was built, for root.
func program(t testing.TB, built func() (*os.File, error)) string {
	t.Helper()
	f, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// publicProgram returns a copy of the daemon that every user may run.
func publicProgram(t testing.TB) string {
	t.Helper()
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(program(t, carpd))
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
