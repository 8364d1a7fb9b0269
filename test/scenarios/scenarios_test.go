// Package scenarios_test plays the scenario files of this directory, each in the
// simulator and on the kernel with the real daemon.
package scenarios_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/script"
)

var rewrite = flag.Bool("rewrite", false, "write what came out into the files that are not as written")

// maxParallel is how many scenarios are played at once. On the kernel they wait
// for protocol timers nearly all the time.
const maxParallel = "12"

func TestMain(m *testing.M) {
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

func TestSimulated(t *testing.T) {
	script.Test(t, "*.txt", script.TestOptions{Rewrite: *rewrite})
}

func TestLabOnKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two to three minutes")
	}
	script.Test(t, "*.txt", script.TestOptions{
		Rewrite: *rewrite,
		Kernel:  &script.KernelOptions{Carpd: carpd(t), Pcap: os.Getenv("CARPD_PCAP")},
	})
}

// carpd builds the daemon.
func carpd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carpd")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, out)
	}
	return path
}
