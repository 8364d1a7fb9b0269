package rules

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxTracked is the size of the largest file that somebody wrote or recorded by intent.
const maxTracked = 256 << 10

// tracked lists the files that are under version control; none outside of a checkout.
func tracked(dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		return nil, nil
	}
	out, err := exec.Command("git", "-C", dir, "ls-files", "-z").Output()
	if err != nil {
		return nil, fmt.Errorf("rules: git ls-files: %w", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), nil
}

// trackedFaults finds what was added by mistake: programs that were built, and dumps.
func trackedFaults(dir, name string) []string {
	info, err := os.Lstat(filepath.Join(dir, name))
	if err != nil || !info.Mode().IsRegular() {
		return nil // gone from the working tree, or a link
	}
	if info.Size() > maxTracked {
		return []string{fmt.Sprintf("%s: %d bytes under version control, at most %d", name, info.Size(), maxTracked)}
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", name, err)}
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err == nil && bytes.Equal(magic[:], []byte("\x7fELF")) {
		return []string{name + ": a program that was built is under version control"}
	}
	return nil
}
