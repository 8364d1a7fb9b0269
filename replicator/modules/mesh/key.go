package mesh

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"
)

const maxKeyFile = 64 << 10 // bytes

// ReadKey reads a private key as ssh-keygen writes it: ed25519, without a passphrase, in
// a file that nobody else can read.
func ReadKey(path string) (ssh.Signer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("mesh: read key: %w: make one by ssh-keygen -t ed25519 -N '' -f %s", err, path)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("mesh: read key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("mesh: read key %s: not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("mesh: read key %s: mode %04o lets others use it: chmod 600", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("mesh: read key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	var protected *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &protected):
		return nil, fmt.Errorf("mesh: read key %s: it has a passphrase, and nobody is there to type it", path)
	case err != nil:
		return nil, fmt.Errorf("mesh: read key %s: %w", path, err)
	case key.PublicKey().Type() != ssh.KeyAlgoED25519:
		return nil, fmt.Errorf("mesh: read key %s: it is of type %s, want %s", path, key.PublicKey().Type(), ssh.KeyAlgoED25519)
	}
	return key, nil
}

// ParseKey reads the public key of a node: the content of its .pub file.
func ParseKey(text string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	switch {
	case err != nil || len(rest) > 0:
		return nil, errors.New("mesh: want one public key, the line of a .pub file that begins with ssh-ed25519")
	case key.Type() != ssh.KeyAlgoED25519:
		return nil, fmt.Errorf("mesh: a public key of type %s, want %s", key.Type(), ssh.KeyAlgoED25519)
	}
	return key, nil
}
