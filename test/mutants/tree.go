package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// snapshot copies what git knows of a working tree, and what is new in it and not
// ignored. Others may edit it meanwhile: it is read once.
func snapshot(ctx context.Context, root, to string) error {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	list, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("copy the tree: git ls-files: %w: run this in a git checkout", err)
	}
	made := map[string]bool{}
	for _, name := range bytes.Split(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		from := filepath.Join(root, string(name))
		info, err := os.Lstat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted, but not committed
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("copy the tree: %w", err)
		}
		target := filepath.Join(to, string(name))
		if dir := filepath.Dir(target); !made[dir] {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return fmt.Errorf("copy the tree: %w", err)
			}
			made[dir] = true
		}
		if err := os.WriteFile(target, text, info.Mode().Perm()|0o200); err != nil {
			return fmt.Errorf("copy the tree: %w", err)
		}
	}
	return nil
}
