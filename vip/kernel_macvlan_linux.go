package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	macvlanPrivate = 1 // MACVLAN_MODE_PRIVATE
	addrGenNone    = 1 // IN6_ADDR_GEN_MODE_NONE
	rpFilterLoose  = 2

	// The settings of interfaces. IPv4's go by netlink, which works where /proc/sys
	// is read-only; of IPv6's the kernel takes most by /proc only.
	settings4 = "/proc/sys/net/ipv4/conf"
	settings6 = "/proc/sys/net/ipv6/conf"

	devicesWait = 2 * time.Second // at most, for another process that makes or removes devices
)

// devices is what a kernel remembers of the macvlans that it has made.
type devices struct {
	leaving leaving // devices that are to be removed

	mu     sync.Mutex          // held while a device is made or removed; guards what follows
	before map[int]arpSettings // of parents, by index, before they were changed
	// Directories of settings, of the namespace in which the kernel was opened
	// whichever thread reads them; -1 where there are none.
	conf4, conf6 int
}

func (d *devices) open() {
	directory := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1
		}
		return fd
	}
	d.before = make(map[int]arpSettings)
	d.conf4, d.conf6 = directory(settings4), directory(settings6)
}

func (d *devices) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.before == nil {
		return // never opened
	}
	for _, fd := range []*int{&d.conf4, &d.conf6} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// lock keeps other goroutines, and other processes of this namespace, from making
// and removing devices: who reads what a parent is like must not see it halfway.
// A process loses the lock when it ends. Where there is no /proc, other processes
// are not kept out.
func (d *devices) lock() (unlock func(), err error) {
	d.mu.Lock()
	for end := time.Now().Add(devicesWait); d.conf4 >= 0; time.Sleep(time.Millisecond) {
		err := retryEINTR(func() error { return unix.Flock(d.conf4, unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			d.mu.Unlock()
			return nil, fmt.Errorf("wait for another carpd to finish with its devices: %w", err)
		}
	}
	return func() {
		if d.conf4 >= 0 {
			_ = unix.Flock(d.conf4, unix.LOCK_UN)
		}
		d.mu.Unlock()
	}, nil
}

func (k *kernel) EnsureDevice(d Device) (Link, error) {
	unlock, err := k.devices.lock()
	if err != nil {
		return Link{}, deviceError("make", d.Name, err)
	}
	defer unlock()
	l, err := k.ensureDevice(d)
	if err != nil {
		return Link{}, deviceError("make", d.Name, err)
	}
	k.out.share(l.Index, d.Parent.Index)
	return l, nil
}

func (k *kernel) ensureDevice(d Device) (Link, error) {
	if d.Name == "" || len(d.Name) >= unix.IFNAMSIZ {
		return Link{}, fmt.Errorf("a name has 1 to %d bytes", unix.IFNAMSIZ-1)
	}
	links, err := k.linkInfos()
	if err != nil {
		return Link{}, err
	}
	there, before, err := examine(links, d, k.devices.before)
	if err != nil {
		return Link{}, err
	}
	made := !there.suits(d)
	if made {
		if there.Index != 0 {
			if err := k.ask(deleteMessage(there.Index)); err != nil && !isGone(err) {
				return Link{}, fmt.Errorf("delete the one that is there: %w", err)
			}
		}
		name := label{vhid: d.VHID, on: d.Parent.Name, parent: d.Parent.Index, before: before}
		// Both in one call: a process that is killed leaves none without its label.
		if err := k.ask(createMessage(d), labelMessage(d.Name, name)); err != nil {
			k.discard(d)
			return Link{}, err
		}
	}
	k.devices.before[d.Parent.Index] = before
	l, err := k.adjust(d, before)
	if err != nil && made {
		k.discard(d)
	}
	return l, err
}

// adjust gives the device, and last the interface below, their settings; before is
// what that was like when it had no device.
func (k *kernel) adjust(d Device, before arpSettings) (Link, error) {
	l, err := k.linkOf(0, d.Name)
	if err != nil {
		return Link{}, err
	}
	own := []setting4{
		// It answers for its own addresses only, and speaks of no others.
		{confARPIgnore, 1}, {confARPAnnounce, 2},
		// The way back of what comes in here is most often the interface below. Loose
		// and not off, because of this and all/rp_filter the greater one counts.
		{confRPFilter, rpFilterLoose},
		// An address that goes takes no other of its subnet along.
		{promoteSecondary, 1},
	}
	if err := k.ask(settingsMessage(l.Index, own...)); err != nil {
		return Link{}, fmt.Errorf("change settings: %w", err)
	}
	// No link-local address: two nodes would derive the same one from the MAC.
	// Without IPv6 there is none anyway.
	if err := k.ask(addrGenMessage(l.Index)); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return Link{}, fmt.Errorf("switch off IPv6 autoconfiguration: %w", err)
	}
	// No other address of that kind either, and no default route.
	if err := k.devices.set6(d.Name, "accept_ra", "0"); err != nil {
		return Link{}, fmt.Errorf("switch off router advertisements: %w", err)
	}
	parent, err := k.linkOf(d.Parent.Index, "")
	if err == nil {
		err = k.quieten(parent, before)
	}
	if err != nil {
		return Link{}, fmt.Errorf("change settings of %s: %w", d.Parent.Name, err)
	}
	l, err = k.linkOf(l.Index, "")
	return l.Link, err
}

// discard deletes a device that could not be finished.
func (k *kernel) discard(d Device) {
	if l, err := k.linkOf(0, d.Name); err == nil && l.suits(d) {
		_ = k.ask(deleteMessage(l.Index)) // the error that led here says more
	}
	if links, err := k.linkInfos(); err == nil {
		_ = k.restore(links, d.Parent.Index, arpSettings{}, false)
	}
}

// ask sends messages in one call and returns the first error.
func (k *kernel) ask(msgs ...[]byte) error {
	k.batch.Lock()
	defer k.batch.Unlock()
	errs, lost := k.converse(msgs)
	return errors.Join(append(errs, lost)...)
}

func deviceError(op, name string, err error) *OpError {
	if e, ok := errors.AsType[*OpError](err); ok {
		return e
	}
	e := &OpError{Op: op, Link: name, Err: err}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Hint = capabilityHint
	case errors.Is(err, unix.EOPNOTSUPP):
		e.Hint = "the kernel has no macvlan: modprobe macvlan, or use mac: interface"
	case errors.Is(err, unix.EBUSY):
		e.Hint = "the interface below is a port of a bridge or bond, which excludes macvlans: use the bridge or the bond itself, or mac: interface"
	case errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES):
		e.Hint = "/proc/sys cannot be written: set net.ipv6.conf.default.accept_ra=0 where the container is made, or use mac: interface"
	case errors.Is(err, unix.ENODEV):
		e.Err = ErrNoLink
	}
	return e
}

// set6 writes an IPv6 setting of an interface unless it has the value; without
// IPv6 there is nothing to set.
func (d *devices) set6(link, key, value string) error {
	if d.conf6 < 0 {
		return nil
	}
	path := link + "/" + key
	fd, err := unix.Openat(d.conf6, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "read", Path: settings6 + "/" + path, Err: err}
	}
	var have [16]byte
	n, err := unix.Read(fd, have[:])
	unix.Close(fd)
	if err == nil && strings.TrimSpace(string(have[:n])) == value {
		return nil
	}
	fd, err = unix.Openat(d.conf6, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: settings6 + "/" + path, Err: err}
	}
	return nil
}

// Messages. kernel_linux.go alone uses the netlink library; these few are written
// by hand. Their numbers are set by converse.

// linkMessage begins a message about an interface; finish ends it.
func linkMessage(kind, flags uint16, index int, ifFlags, change uint32) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg, 256)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	info := b[unix.SizeofNlMsghdr:]
	binary.NativeEndian.PutUint32(info[4:], uint32(index))
	binary.NativeEndian.PutUint32(info[8:], ifFlags)
	binary.NativeEndian.PutUint32(info[12:], change)
	return b
}

func finish(b []byte) []byte {
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// attribute appends an attribute, padded.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for range -len(value) & (unix.RTA_ALIGNTO - 1) {
		b = append(b, 0)
	}
	return b
}

func uint32Attribute(b []byte, kind uint16, value uint32) []byte {
	return attribute(b, kind, binary.NativeEndian.AppendUint32(nil, value))
}

func text(s string) []byte { return append([]byte(s), 0) }

func createMessage(d Device) []byte {
	info := attribute(nil, unix.IFLA_INFO_KIND, text("macvlan"))
	info = attribute(info, unix.IFLA_INFO_DATA, uint32Attribute(nil, unix.IFLA_MACVLAN_MODE, macvlanPrivate))
	b := linkMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	b = attribute(b, unix.IFLA_IFNAME, text(d.Name))
	b = uint32Attribute(b, unix.IFLA_LINK, uint32(d.Parent.Index))
	b = attribute(b, unix.IFLA_ADDRESS, d.MAC[:])
	return finish(attribute(b, unix.IFLA_LINKINFO, info))
}

func labelMessage(name string, l label) []byte {
	b := linkMessage(unix.RTM_SETLINK, 0, 0, 0, 0)
	b = attribute(b, unix.IFLA_IFNAME, text(name))
	return finish(attribute(b, unix.IFLA_IFALIAS, []byte(l.String())))
}

// groupMessage puts an interface in a group.
func groupMessage(index int, group uint32) []byte {
	return finish(uint32Attribute(linkMessage(unix.RTM_SETLINK, 0, index, 0, 0), unix.IFLA_GROUP, group))
}

// deleteGroupMessage deletes all interfaces of a group.
func deleteGroupMessage(group uint32) []byte {
	return finish(uint32Attribute(linkMessage(unix.RTM_DELLINK, 0, 0, 0, 0), unix.IFLA_GROUP, group))
}

// nameMessage gives an interface an alternative name, or takes it away.
func nameMessage(kind uint16, index int, name string) []byte {
	names := attribute(nil, unix.IFLA_ALT_IFNAME, text(name))
	return finish(attribute(linkMessage(kind, 0, index, 0, 0), unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, names))
}

func deleteMessage(index int) []byte { return finish(linkMessage(unix.RTM_DELLINK, 0, index, 0, 0)) }

// switchMessage sets an interface up or down.
func switchMessage(index int, up bool) []byte {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	return finish(linkMessage(unix.RTM_SETLINK, 0, index, flags, unix.IFF_UP))
}

// setting4 is an IPv4 setting of an interface, by its number counted from 1.
type setting4 struct {
	which uint16
	value uint32
}

func settingsMessage(index int, settings ...setting4) []byte {
	var values []byte
	for _, s := range settings {
		values = uint32Attribute(values, s.which, s.value)
	}
	family := attribute(nil, unix.AF_INET, attribute(nil, inetConf, values))
	return finish(attribute(linkMessage(unix.RTM_SETLINK, 0, index, 0, 0), unix.IFLA_AF_SPEC, family))
}

func addrGenMessage(index int) []byte {
	family := attribute(nil, unix.AF_INET6, attribute(nil, unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenNone}))
	return finish(attribute(linkMessage(unix.RTM_SETLINK, 0, index, 0, 0), unix.IFLA_AF_SPEC, family))
}
