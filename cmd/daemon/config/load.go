package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/carpd/carpd/hooks"
)

// Options is what reading a file needs from outside. The zero value asks the
// system and checks no kinds of hooks.
type Options struct {
	// Interfaces returns the names of the interfaces that have an address in
	// whose subnet addr lies. Nil asks the system.
	Interfaces func(addr netip.Addr) ([]string, error)
	// Hostname names the node if the file does not. Nil asks the system.
	Hostname func() (string, error)
	// Kinds lists the kinds that are known of a class; another one is a fault.
	// Nil knows nothing and refuses nothing.
	Kinds func(hooks.Class) []string
	// CheckHook looks at one hook when all its keys are sound, usually by
	// decoding its settings into the type of its kind. Problems that it returns
	// are taken over, another error becomes a fault of the hook. Its Name is still empty
	// unless the file gives one. Nil for none.
	CheckHook func(Hook) error

	// CheckReplication looks at one entry of replication when all of its keys are sound. Each
	// error that its error joins becomes a fault there. Nil for none.
	CheckReplication func(Replication) error

	mode fs.FileMode // of the file, 0 if it is none
}

// Load reads the file with the zero Options. The error is of type Problems and
// has the warnings among it; without a fault they are in File.Warnings.
func Load(path string) (*File, error) { return Options{}.Load(path) }

// Load reads the file. See the function of the same name.
func (o Options) Load(path string) (*File, error) {
	data, mode, err := readFile(path)
	if err != nil {
		p := Problem{File: path, Message: "cannot read the configuration: " + reason(err), Cause: err}
		if errors.Is(err, fs.ErrNotExist) {
			p.Hint = "create it, or name another with --config; carpd.yaml(5) has an example of six lines"
		}
		return nil, Problems{p}
	}
	o.mode = mode
	return Parse(path, data, o)
}

// readTime bounds the wait for a configuration that comes through a pipe: a
// reload lets nothing else be done meanwhile, not even stop.
const readTime = 2 * time.Second

// readFile reads at most one byte more than the limit, which Parse then refuses.
// It waits neither for the other end of a pipe to be opened nor for ever for
// what comes out of it.
func readFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return nil, 0, errors.New("it is a directory")
	case mode&fs.ModeNamedPipe != 0:
		if err := f.SetReadDeadline(time.Now().Add(readTime)); err != nil {
			return nil, 0, err
		}
	case !mode.IsRegular():
		return nil, 0, errors.New("it is neither a regular file nor a pipe")
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	return data, info.Mode(), err
}

// Parse reads a configuration from memory. The name stands for the file in
// problems, and relative file names inside are relative to its directory. The
// error is of type Problems.
func Parse(name string, data []byte, o Options) (*File, error) {
	if len(data) > MaxFile {
		return nil, Problems{{File: name, Message: "the file is larger than 1 MiB", Hint: "is this the right file?"}}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	o = o.withDefaults()
	s := newSource(name, data)
	var f *File
	if doc := s.document(data); doc != nil {
		f = (&reader{source: s, options: o, dir: filepath.Dir(name)}).file(doc)
	}
	problems := s.all()
	if s.faults > 0 {
		return nil, problems
	}
	f.Path, f.Warnings = name, problems
	return f, nil
}

func (o Options) withDefaults() Options {
	if o.Interfaces == nil {
		o.Interfaces = systemInterfaces
	}
	if o.Hostname == nil {
		o.Hostname = os.Hostname
	}
	return o
}

// systemInterfaces finds the interfaces by the subnets of their addresses. An
// address with a full prefix has no subnet: it may be a virtual one of ours.
func systemInterfaces(addr netip.Addr) ([]string, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 {
			continue // an interface that went away between the calls has no address
		}
		if slices.ContainsFunc(addrs, func(a net.Addr) bool { return subnetHolds(a, addr) }) {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

func subnetHolds(a net.Addr, addr netip.Addr) bool {
	p, err := netip.ParsePrefix(a.String())
	return err == nil && p.Bits() < p.Addr().BitLen() && p.Contains(addr)
}

// reason is the error without the operation and path that the message names.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
