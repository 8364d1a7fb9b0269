package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/carpd/carpd/carp"
)

// passphraseMax is the length of CARP's key: a longer passphrase has no room.
// The tools of the BSDs copy 19 bytes of it and a zero.
const (
	passphraseMax = 20
	passphraseBSD = 19
)

// secretFileMax bounds what is read of a passphrase file. The first line is far
// shorter.
const secretFileMax = 4096

// secret sets the passphrase of the instance from one of the two keys. It comes
// after the protocol, which says how long it may be.
func (r *reader) secret(d *draft, inline, file *node) {
	switch {
	case d.Protocol == carp.VRRP3.String():
		for _, key := range []string{"passphrase", "passphrase_file"} {
			if at, given := d.at[key]; given {
				r.fault(at, "remove the key, or use protocol: carp, which signs its adverts",
					"%s: version 3 of VRRP has no authentication (RFC 9568, 9), only that nothing from behind a router is heard", key)
			}
		}
	case inline != nil && file != nil:
		r.fault(d.at["passphrase_file"], "keep one of them", "passphrase is given in line %d already", d.at["passphrase"].line)
	case inline != nil:
		if text, ok := r.str(inline, fmt.Sprintf("1 to %d bytes", passphraseRoom(d))); ok {
			d.Passphrase = r.passphrase(d, inline, "passphrase", []byte(text))
		}
		if r.options.mode&0o077 != 0 {
			r.warn(d.at["passphrase"], fmt.Sprintf("chmod 600 %s, or use passphrase_file", shellQuote(r.name)),
				"the passphrase is in a file that others on this machine may read (mode %04o)", r.options.mode.Perm())
		}
	case file != nil:
		if text, ok := r.str(file, "the name of a file"); ok {
			d.Passphrase = r.passphraseFile(d, file, text)
		}
	case d.Protocol == carp.CARP.String():
		r.warn(d.begin, "give passphrase_file", "no passphrase: whoever is on the network can take the addresses over")
	}
}

// passphraseRoom is how many bytes the protocol has room for.
func passphraseRoom(d *draft) int {
	if d.VRRP() {
		return carp.MaxPassword
	}
	return passphraseMax
}

// passphrase checks a passphrase and returns it if it is sound. The messages
// give its length, never its text.
func (r *reader) passphrase(d *draft, n *node, what string, p []byte) []byte {
	switch {
	case len(p) == 0:
		r.fault(n.at, "write the passphrase into its first line", "%s is empty", what)
	case d.VRRP() && len(p) > carp.MaxPassword:
		r.fault(n.at, "shorten it to 8 bytes on all nodes; keepalived uses the first 8 of a longer one and does not say so",
			"%s is %d bytes long: VRRP has room for %d", what, len(p), carp.MaxPassword)
	case len(p) > passphraseMax:
		r.fault(n.at, "shorten it to 19 bytes", "%s is %d bytes long: CARP's key has room for %d", what, len(p), passphraseMax)
	case bytes.IndexByte(p, 0) >= 0:
		r.fault(n.at, "write it as text", "%s holds a zero byte, which no other program can be given", what)
	case bytes.ContainsAny(p, "\n"):
		r.fault(n.at, "write it on one line", "%s has more than one line", what)
	default:
		r.passphraseWarnings(n, what, p)
		return p
	}
	return nil
}

func (r *reader) passphraseWarnings(n *node, what string, p []byte) {
	if len(p) > passphraseBSD {
		r.warn(n.at, "shorten it to 19 bytes if another kind of node is in the group",
			"%s is 20 bytes long: the tools of the BSDs use the first 19, and ucarp refuses it", what)
	}
	if len(bytes.TrimSpace(p)) != len(p) {
		r.warn(n.at, "remove it unless it is meant", "%s begins or ends in a space or carriage return, which counts", what)
	}
}

// passphraseFile reads the first line of a file that nobody else can read.
func (r *reader) passphraseFile(d *draft, n *node, path string) []byte {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	line, hint, err := readSecret(path)
	if err != nil {
		p := r.problem(Fault, n.at, hint, fmt.Sprintf("passphrase_file: %s: %s", path, reason(err)))
		p.Cause = err
		r.note(p)
		return nil
	}
	return r.passphrase(d, n, "the first line of "+path, line)
}

// readSecret reads the first line of a file, without its newline. It checks the
// opened file and not the name, so that nobody can swap it in between, and does
// not wait for the other end of a pipe.
func readSecret(path string) (line []byte, hint string, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, openHint(path, err), err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if hint, err := private(path, info); err != nil {
		return nil, hint, err
	}
	data, err := io.ReadAll(io.LimitReader(f, secretFileMax))
	if err != nil {
		return nil, "", err
	}
	line, _, _ = bytes.Cut(data, []byte("\n"))
	return line, "", nil
}

func openHint(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("create it: (umask 077; echo PASSPHRASE > %s)", shellQuote(path))
	case errors.Is(err, fs.ErrPermission):
		return "read it as root"
	}
	return ""
}

// private refuses a file that somebody else can read or could have written.
func private(path string, info fs.FileInfo) (hint string, err error) {
	if !info.Mode().IsRegular() {
		return "write the passphrase into a plain file", errors.New("not a regular file")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "chown root " + shellQuote(path), fmt.Errorf("owned by uid %d, neither root nor the user of this process", st.Uid)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return "chmod 600 " + shellQuote(path), fmt.Errorf("others on this machine may use it (mode %04o)", perm)
	}
	return "", nil
}
