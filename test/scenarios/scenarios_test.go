// Package scenarios_test plays the scenario files of this directory.
package scenarios_test

import (
	"flag"
	"testing"

	"github.com/carpd/carpd/test/script"
)

var rewrite = flag.Bool("rewrite", false, "write what came out into the files that are not as written")

func TestSimulated(t *testing.T) {
	script.Test(t, "*.txt", script.TestOptions{Rewrite: *rewrite})
}
