package link

import (
	"bufio"
	"os"
	"slices"
	"strings"
)

// Held lists what processes of this network namespace have claimed, as
// "IF/VHID", sorted: where nothing is held, no daemon is running. It returns
// nothing where /proc cannot be read.
func Held() []string {
	f, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil
	}
	defer f.Close()
	var held []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if _, name, ok := strings.Cut(lines.Text(), " @carpd/"); ok {
			held = append(held, name)
		}
	}
	slices.Sort(held)
	return slices.Compact(held)
}
