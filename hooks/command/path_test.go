package command

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/carpd/carpd/hooks/hookstest"
)

// tree makes dir/sub/hook.sh, all of it acceptable.
func tree(t *testing.T) (dir, program string) {
	t.Helper()
	dir = hookstest.SafeDir(t)
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "sub", "hook.sh")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{program, filepath.Dir(program)} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, program
}

func TestPathThatOthersCouldChangeIsRefusedWithTheCommandThatHelps(t *testing.T) {
	for _, tc := range []struct {
		name string
		harm func(t *testing.T, dir, program string) (path string)
		want string // with DIR for the directory
	}{
		{"good", func(_ *testing.T, _, p string) string { return p }, ""},
		{"directory-writable-by-group", func(t *testing.T, dir, p string) string {
			must(t, os.Chmod(filepath.Join(dir, "sub"), 0o775))
			return p
		}, "directory DIR/sub is writable by group or others (mode 0775), who could replace the program: chmod go-w DIR/sub"},
		{"parent-writable-by-others", func(t *testing.T, dir, p string) string {
			must(t, os.Chmod(dir, 0o757))
			return p
		}, "directory DIR is writable by group or others (mode 0757)"},
		{"sticky-directory-of-ours", func(t *testing.T, dir, p string) string {
			must(t, os.Chmod(dir, 0o777|os.ModeSticky))
			if os.Geteuid() == 0 {
				giveAway(t, dir)
			}
			return p
		}, "directory DIR "},
		{"program-writable", func(t *testing.T, _, p string) string {
			must(t, os.Chmod(p, 0o766))
			return p
		}, "file DIR/sub/hook.sh is writable by group or others (mode 0766)"},
		{"not-executable", func(t *testing.T, _, p string) string {
			must(t, os.Chmod(p, 0o600))
			return p
		}, "not executable: chmod +x DIR/sub/hook.sh"},
		{"missing", func(_ *testing.T, _, p string) string { return p + "x" }, "DIR/sub/hook.shx does not exist"},
		{"directory", func(_ *testing.T, _, p string) string { return filepath.Dir(p) }, "DIR/sub is no regular file"},
		{"good-link", func(t *testing.T, dir, p string) string {
			must(t, os.Symlink("sub/hook.sh", filepath.Join(dir, "link")))
			return filepath.Join(dir, "link")
		}, ""},
		{"link-into-a-writable-directory", func(t *testing.T, dir, p string) string {
			must(t, os.Chmod(filepath.Join(dir, "sub"), 0o777))
			must(t, os.Symlink(p, filepath.Join(dir, "link")))
			return filepath.Join(dir, "link")
		}, "directory DIR/sub is writable"},
		{"link-through-a-writable-directory", func(t *testing.T, dir, p string) string {
			open := filepath.Join(dir, "open")
			must(t, os.Mkdir(open, 0o755))
			must(t, os.Chmod(open, 0o777))
			must(t, os.Symlink(p, filepath.Join(open, "second")))
			must(t, os.Symlink(filepath.Join(open, "second"), filepath.Join(dir, "first")))
			return filepath.Join(dir, "first")
		}, "directory DIR/open is writable"},
		{"links-in-a-circle", func(t *testing.T, dir, p string) string {
			must(t, os.Symlink("b", filepath.Join(dir, "a")))
			must(t, os.Symlink("a", filepath.Join(dir, "b")))
			return filepath.Join(dir, "a")
		}, "too many symbolic links"},
		{"dots-behind-a-link", func(t *testing.T, dir, p string) string {
			must(t, os.Symlink("sub", filepath.Join(dir, "s")))
			return dir + "/s/../sub/hook.sh"
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, program := tree(t)
			err := CheckPath(tc.harm(t, dir, program))
			want := strings.ReplaceAll(tc.want, "DIR", dir)
			switch {
			case want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestForeignOwnerIsRefusedUnlessTheProgramRunsAsThatUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	_, program := tree(t)
	giveAway(t, program)
	if err := checkPath(program, []uint32{0}); err == nil || !strings.Contains(err.Error(), "belongs to user id 65534") ||
		!strings.Contains(err.Error(), "chown root "+program) {
		t.Errorf("got %v", err)
	}
	if err := checkPath(program, []uint32{0, 65534}); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestPathIsCheckedAgainBeforeEachRun(t *testing.T) {
	dir, program := tree(t)
	if _, err := Run(t.Context(), Command{Path: program}); err != nil {
		t.Fatal(err)
	}
	must(t, os.Chmod(filepath.Join(dir, "sub"), 0o777))
	if _, err := Run(t.Context(), Command{Path: program}); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("ran from a directory that anybody may write to: %v", err)
	}
}

func TestScriptThatCannotStartSaysWhy(t *testing.T) {
	dir := hookstest.SafeDir(t)
	for body, want := range map[string]string{
		"#!/no/such/shell\n": "the interpreter in its first line is missing",
		"echo hello\n":       "a script needs a first line such as #!/bin/sh",
	} {
		path := filepath.Join(dir, "hook")
		must(t, os.WriteFile(path, []byte(body), 0o755))
		must(t, os.Chmod(path, 0o755))
		_, err := Run(t.Context(), Command{Path: path})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", body, err)
		}
	}
}

func TestParseStatSurvivesNamesWithParentheses(t *testing.T) {
	state, group, session, ok := parseStat([]byte("12 (a) b (c) S 1 77 78 0 -1"))
	if !ok || state != 'S' || group != 77 || session != 78 {
		t.Error(state, group, session, ok)
	}
	for _, bad := range []string{"", "12 (x", "12 (x) S", "12 (x) S 1 y", "12 (x) S 1 2", "12 (x) S 1 2 y"} {
		if _, _, _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("parsed %q", bad)
		}
	}
}

// giveAway makes the path another user's.
func giveAway(t *testing.T, path string) {
	t.Helper()
	if err := os.Chown(path, 65534, 65534); errors.Is(err, syscall.EINVAL) {
		t.Skip("there are no other users in this user namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
