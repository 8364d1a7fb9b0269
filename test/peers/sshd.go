package peers

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/test/lab"
)

// SSHD is OpenSSH's sshd on a host of the lab. It knows one account, which only it and
// its programs see; nothing of the machine's own sshd is used or changed.
type SSHD struct {
	Address    netip.AddrPort
	User       string // with a home that is owned by it
	UID        int    // of the user, and his group
	Home       string // the user's directory, of mode 0700, as sshd and its programs see it
	Public     string // a directory that the user can read and only root can write, as sshd and its programs see it
	Local      string // the same as the test sees it
	KeyFile    string // the client's private key
	KnownHosts string // has the server's key

	proc *lab.Proc
}

// SSHDOptions is how sshd is run. Zero values are OpenSSH's defaults.
type SSHDOptions struct {
	Command func(*SSHD) string // for the key, in authorized_keys, with "restrict"; nil: none
	Lines   []string           // of sshd_config; they come first
	Disk    int                // bytes of a disk of its own that Home is on; 0: none
}

// sshdUser is the account and its number.
const (
	sshdUser   = "snapshots"
	sshdUID    = 64177
	sshdPublic = "/run/public"
)

// sshdStart bounds the start of sshd.
const sshdStart = 20 * time.Second

// StartSSHD starts sshd on port 22 of an address of the host. It needs root, and ends
// with the test.
func StartSSHD(t lab.TB, h *lab.Host, addr netip.Addr, o SSHDOptions) *SSHD {
	t.Helper()
	path := program(t, "/usr/sbin/sshd", "openssh-server")
	if os.Geteuid() != 0 || os.Getenv("CARPD_LAB_INSIDE") != "" {
		t.Skip("peers: sshd needs the root of the machine: it changes to another user")
	}
	dir := workDir(t, "sshd")
	s := &SSHD{Address: netip.AddrPortFrom(addr, 22), User: sshdUser, UID: sshdUID, Public: sshdPublic, Home: filepath.Join(sshdPublic, "home"), Local: dir,
		KeyFile: filepath.Join(dir, "key"), KnownHosts: filepath.Join(dir, "known_hosts")}
	if err := s.prepare(o); err != nil {
		t.Fatalf("peers: prepare sshd: %v", err)
	}
	// The mounts are those of this process and its children alone. The directory of the
	// test may lie in one that the user cannot enter.
	const script = `mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -m 0755 /run/sshd /run/public && mount --bind "$1" /run/public && mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && if [ "$2" != 0 ]; then mount -t tmpfs -o "size=$2,mode=0700,uid=$3,gid=$3" tmpfs /run/public/home; fi && exec "$0" -D -e -f "$1/sshd_config"`
	s.proc = h.Start(exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, path, dir, strconv.Itoa(o.Disk), strconv.Itoa(s.UID)))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(sshdStart); !strings.Contains(s.proc.Output(), "Server listening on"); <-tick.C {
		select {
		case <-s.proc.Done():
			t.Fatalf("peers: sshd ended: %s", s.proc.Output())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("peers: sshd does not listen after %v: %s", sshdStart, s.proc.Output())
		}
	}
	return s
}

// prepare writes all files.
func (s *SSHD) prepare(o SSHDOptions) error {
	hostKey, hostLine, err1 := sshKey()
	userKey, userLine, err2 := sshKey()
	home := filepath.Join(s.Local, "home")
	err := errors.Join(err1, err2, os.Chmod(s.Local, 0o755), os.Mkdir(home, 0o700), os.Chown(home, s.UID, s.UID))
	restrict := ""
	if o.Command != nil {
		restrict = fmt.Sprintf("restrict,command=%q ", o.Command(s))
	}
	config := append(o.Lines, "ListenAddress "+s.Address.String(), "HostKey "+s.Public+"/host_key", "AuthorizedKeysFile "+s.Public+"/authorized_keys",
		"StrictModes no", // the directory is below one that everybody can write to
		"UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PidFile none", "Subsystem sftp internal-sftp", "LogLevel VERBOSE")
	for name, text := range map[string]string{
		"host_key":        hostKey,
		"key":             userKey,
		"known_hosts":     fmt.Sprintf("%s %s", s.Address.Addr(), hostLine),
		"authorized_keys": restrict + userLine,
		"sshd_config":     strings.Join(config, "\n") + "\n",
		"passwd":          fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\nsshd:x:64178:64178::/run/sshd:/usr/sbin/nologin\n%s:*:%d:%d::%s:/bin/sh\n", s.User, s.UID, s.UID, s.Home),
		"group":           fmt.Sprintf("root:x:0:\n%s:x:%d:\n", s.User, s.UID),
	} {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, "key") {
			mode = 0o600
		}
		err = errors.Join(err, os.WriteFile(filepath.Join(s.Local, name), []byte(text), mode))
	}
	return err
}

// sshKey makes a key, and the line of its public half.
func sshKey() (private, public string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	block, err := ssh.MarshalPrivateKey(key, "carpd test")
	if err != nil {
		return "", "", err
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(line)), nil
}

// Path returns where the test sees a file that sshd and its programs know as name.
func (s *SSHD) Path(name string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", s.proc.Pid), name)
}

// KillSessions ends the processes of the user by SIGKILL, and returns how many there were.
func (s *SSHD) KillSessions() int { return s.signalSessions(syscall.SIGKILL) }

// StopSessions stops the processes of the user: they keep their connections and do nothing.
func (s *SSHD) StopSessions() int { return s.signalSessions(syscall.SIGSTOP) }

// signalSessions finds them by the namespaces that they share with sshd.
func (s *SSHD) signalSessions(sig syscall.Signal) int {
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", s.proc.Pid))
	if err != nil {
		return 0
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		info, err := os.Stat("/proc/" + e.Name())
		space, spaceErr := os.Readlink("/proc/" + e.Name() + "/ns/mnt")
		if err == nil && spaceErr == nil && space == home && info.Sys().(*syscall.Stat_t).Uid == uint32(s.UID) && syscall.Kill(pid, sig) == nil {
			n++
		}
	}
	return n
}

// Output returns what sshd has logged.
func (s *SSHD) Output() string { return s.proc.Output() }
