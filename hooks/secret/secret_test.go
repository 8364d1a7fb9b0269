package secret

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFirstLineOfAPrivateFileIsTheSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]string{"a b\n": "a b", "a b": "a b", "a\r\nb\n": "a", strings.Repeat("x", Max) + "\n": strings.Repeat("x", Max)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); got != want || err != nil {
			t.Errorf("%.20q: got %.20q, %v", text, got, err)
		}
		if got, err := ReadAll(path); string(got) != text || err != nil {
			t.Errorf("all of %.20q: got %.20q, %v", text, got, err)
		}
	}
}

func TestFileThatIsNotPrivateIsRefusedAndNothingOfItShown(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	file := func(text string, mode os.FileMode) func() error {
		return func() error {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	for want, put := range map[string]func() error{
		"does not exist":              func() error { return nil },
		"mode 0640":                   file("hunter2\n", 0o640),
		"chmod 600 " + path:           file("hunter2\n", 0o604),
		"first line is empty":         file("\nhunter2\n", 0o600),
		"longer than 4096 bytes":      file(strings.Repeat("hunter2", 1000), 0o600),
		"no plain file":               func() error { return syscall.Mkfifo(path, 0o600) },
		"belongs to user id 65534":    func() error { return give(file("hunter2\n", 0o600), path) },
		"it is no plain file":         func() error { return os.Mkdir(path, 0o700) },
		"secret: open " + path + "/x": nil,
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		at := path
		if put == nil {
			put, at = file("hunter2\n", 0o600), path+"/x"
		}
		if err := put(); err != nil {
			t.Logf("not tried: %s: %v", want, err)
			continue
		}
		got, err := Read(at)
		if err == nil || got != "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %q, %v; want %s", got, err, want)
		}
	}
	if _, err := Read("key"); err == nil {
		t.Error("a relative path is accepted")
	}
}

func give(make func() error, path string) error {
	if err := make(); err != nil {
		return err
	}
	return os.Chown(path, 65534, 65534)
}
