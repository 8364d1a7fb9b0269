package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	watchBuffer = 8 << 20 // bytes of notices that may wait
	dumpTries   = 10      // a dump that was interrupted by changes is made again

	ifaProto          = 11 // IFA_PROTO
	inetConf          = 1  // IFLA_INET_CONF
	confRPFilter      = 8  // IPV4_DEVCONF_RP_FILTER, counted from 1, as the next ones
	confARPAnnounce   = 18
	confARPIgnore     = 19
	promoteSecondary  = 20
	lifetimeForever   = ^uint32(0)
	promoteAllSetting = "/proc/sys/net/ipv4/conf/all/promote_secondaries"
)

// kernel is the real Kernel. Its sockets belong to the network namespace of the
// thread that opened it, whichever thread uses them later.
type kernel struct {
	list       map[int]*nl.SocketHandle // for dumps; locks itself
	promoteAll *os.File                 // nil if unreadable
	out        *packetSocket
	neighbours neighbours
	devices    devices
	diag       diag

	slow  sync.Mutex // held while an interface is set down
	batch sync.Mutex // guards fd's conversation, seq and in
	fd    int
	seq   uint32
	in    []byte // answers
	most  int    // messages in one send, whose answers fit in the receive buffer
	queue queue  // of what waits for the next conversation

	watch    *nl.NetlinkSocket
	watching sync.WaitGroup
	mu       sync.Mutex // guards what follows
	watchers map[*watcher]struct{}
	closed   bool
}

type watcher struct {
	mu sync.Mutex // held while f runs, so that stop can promise that it is over
	f  func(Notice)
}

// Open returns the kernel of the network namespace of the calling thread. It
// needs CAP_NET_ADMIN and CAP_NET_RAW; an error names the one that is missing.
func Open() (Kernel, error) {
	k := &kernel{fd: -1, watchers: make(map[*watcher]struct{})}
	if err := k.open(); err != nil {
		_ = k.Close()
		e := &OpError{Op: "open", Err: err}
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			e.Hint = capabilityHint
		}
		return nil, e
	}
	return k, nil
}

const capabilityHint = "run carpd as root or give it CAP_NET_ADMIN and CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW)"

func (k *kernel) open() (err error) {
	if k.out, err = openPacketSocket(); err != nil {
		return fmt.Errorf("packet socket needs CAP_NET_RAW: %w", err)
	}
	list, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	k.list = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: list}}
	_ = list.SetReceiveTimeout(&unix.Timeval{Sec: 5})
	// Lets the kernel filter a dump by interface; before Linux 4.20 we do that alone.
	_ = unix.SetsockoptInt(list.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	if k.fd, k.most, err = openBatch(); err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	// The kernel checks the capability before it looks for interface 0.
	if errs, _ := k.converse([][]byte{changeMessage(Change{Op: Remove, Prefix: netip.MustParsePrefix("192.0.2.1/32")})}); errors.Is(errs[0], unix.EPERM) {
		return fmt.Errorf("changing addresses needs CAP_NET_ADMIN: %w", errs[0])
	}
	if k.watch, err = openWatch(); err != nil {
		return fmt.Errorf("netlink watch: %w", err)
	}
	_ = k.diag.open()       // Sever says why it does not work
	_ = k.neighbours.open() // so does WatchNeighbours
	k.promoteAll, _ = os.Open(promoteAllSetting)
	k.devices.open()
	k.watching.Go(k.hear)
	return nil
}

func (k *kernel) Close() error {
	k.mu.Lock()
	closed := k.closed
	k.closed = true
	k.mu.Unlock()
	if closed {
		return nil
	}
	if k.watch != nil {
		k.watch.Close() // ends hear
	}
	k.watching.Wait()
	for _, h := range k.list {
		h.Close()
	}
	k.batch.Lock()
	if k.fd >= 0 {
		unix.Close(k.fd)
		k.fd = -1
	}
	k.batch.Unlock()
	if k.promoteAll != nil {
		k.promoteAll.Close()
	}
	k.devices.close()
	k.diag.close()
	k.neighbours.close()
	k.out.close()
	return nil
}

func (k *kernel) Link(name string) (Link, error) {
	info, err := k.linkOf(0, name)
	if errors.Is(err, unix.ENODEV) {
		return Link{}, &OpError{Op: "look up interface", Link: name, Err: ErrNoLink, Hint: "compare with ip link"}
	}
	if err != nil {
		return Link{}, &OpError{Op: "look up interface", Link: name, Err: err}
	}
	l := info.Link
	if l.Name != name { // the kernel looks among the alternative names as well
		return Link{}, &OpError{Op: "look up interface", Link: name, Err: ErrNoLink,
			Hint: fmt.Sprintf("%s is an alternative name of %s: use that", name, l.Name)}
	}
	return l, nil
}

// linkOf looks up one interface by its index or, if that is 0, by its name. The
// error is ENODEV if there is none.
func (k *kernel) linkOf(index int, name string) (linkInfo, error) {
	req := k.request(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	if index == 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err == nil && len(msgs) == 0 {
		err = unix.ENODEV
	}
	if err != nil {
		return linkInfo{}, err
	}
	return k.parseLink(msgs[0]), nil
}

func (k *kernel) Links() ([]Link, error) {
	infos, err := k.linkInfos()
	links := make([]Link, len(infos))
	for i, l := range infos {
		links[i] = l.Link
	}
	return links, err
}

func (k *kernel) linkInfos() ([]linkInfo, error) {
	msgs, err := k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func() nl.NetlinkRequestData { return nl.NewIfInfomsg(unix.AF_UNSPEC) })
	if err != nil {
		return nil, &OpError{Op: "list interfaces", Err: err}
	}
	infos := make([]linkInfo, len(msgs))
	for i, m := range msgs {
		infos[i] = k.parseLink(m)
	}
	return infos, nil
}

func (k *kernel) Addrs(index int) ([]Addr, error) {
	msgs, err := k.dumpAddrs(index)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, &OpError{Op: "list addresses", Err: err}
	}
	var addrs []Addr
	for _, m := range msgs {
		if a, i, ok := parseAddr(m); ok && i == index {
			addrs = append(addrs, a)
		}
	}
	slices.SortStableFunc(addrs, func(a, b Addr) int { return a.Prefix.Addr().BitLen() - b.Prefix.Addr().BitLen() })
	return addrs, nil
}

// dumpAddrs lists the addresses of an interface, or with 0 of all.
func (k *kernel) dumpAddrs(index int) ([][]byte, error) {
	return k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, func() nl.NetlinkRequestData {
		msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
		msg.Index = uint32(index)
		return msg
	})
}

func (k *kernel) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = k.list
	return req
}

// dump lists, again if changes interrupted it.
func (k *kernel) dump(kind int, answer uint16, header func() nl.NetlinkRequestData) (msgs [][]byte, err error) {
	for range dumpTries {
		req := k.request(kind, unix.NLM_F_DUMP)
		req.AddData(header())
		msgs, err = req.Execute(unix.NETLINK_ROUTE, answer)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return msgs, err
		}
	}
	return nil, err
}

// changeMessage builds RTM_NEWADDR, RTM_DELADDR or RTM_SETLINK.
func changeMessage(c Change) []byte {
	if c.Op == SetUp || c.Op == SetDown {
		return switchMessage(c.Index, c.Op == SetUp)
	}
	kind, flags := unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE
	if c.Op == Remove {
		kind, flags = unix.RTM_DELADDR, 0
	}
	// By hand, in one allocation: thousands are made while addresses are waited for.
	native, addr := binary.NativeEndian, c.Prefix.Addr()
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg, addressMessage)
	native.PutUint16(b[4:], uint16(kind))
	native.PutUint16(b[6:], uint16(unix.NLM_F_REQUEST|flags))
	info := b[unix.SizeofNlMsghdr:]
	info[0], info[1] = unix.AF_INET, uint8(c.Prefix.Bits())
	if addr.Is6() {
		info[0] = unix.AF_INET6
	}
	native.PutUint32(info[4:], uint32(c.Index))
	for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS} {
		if addr.Is6() {
			value := addr.As16()
			b = attribute(b, kind, value[:])
		} else {
			value := addr.As4()
			b = attribute(b, kind, value[:])
		}
	}
	if c.Op == Remove {
		return finish(b)
	}
	ifaFlags := uint32(0)
	if addr.Is6() {
		ifaFlags |= unix.IFA_F_NODAD
	}
	if c.Host {
		ifaFlags |= unix.IFA_F_NOPREFIXROUTE
	}
	valid := lifetimeForever
	if c.Valid != Forever {
		valid = uint32(c.Valid / time.Second)
	}
	preferred := valid
	if addr.Is6() {
		preferred = 0
	}
	var life [unix.SizeofIfaCacheinfo]byte
	native.PutUint32(life[0:], preferred)
	native.PutUint32(life[4:], valid)
	b = uint32Attribute(b, unix.IFA_FLAGS, ifaFlags)
	b = attribute(b, unix.IFA_CACHEINFO, life[:])
	return finish(attribute(b, ifaProto, []byte{Mark}))
}

// addressMessage is how long a message about an address is at most.
const addressMessage = 128

func parseAddr(m []byte) (a Addr, index int, ok bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return a, 0, false
	}
	msg := nl.DeserializeIfAddrmsg(m)
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
	if err != nil {
		return a, 0, false
	}
	var addr netip.Addr
	local := false
	a.Valid, a.Preferred = Forever, Forever
	for _, at := range attrs {
		switch at.Attr.Type {
		case unix.IFA_LOCAL: // of a point-to-point link IFA_ADDRESS is the peer
			addr, _ = netip.AddrFromSlice(at.Value)
			local = true
		case unix.IFA_ADDRESS:
			if !local {
				addr, _ = netip.AddrFromSlice(at.Value)
			}
		case ifaProto:
			if len(at.Value) > 0 {
				a.Mark = at.Value[0]
			}
		case unix.IFA_CACHEINFO:
			if len(at.Value) >= 8 {
				a.Preferred = lifetime(binary.NativeEndian.Uint32(at.Value))
				a.Valid = lifetime(binary.NativeEndian.Uint32(at.Value[4:]))
			}
		}
	}
	a.Prefix = netip.PrefixFrom(addr, int(msg.Prefixlen))
	return a, int(msg.Index), a.Prefix.IsValid()
}

func lifetime(seconds uint32) time.Duration {
	if seconds == lifetimeForever {
		return Forever
	}
	return time.Duration(seconds) * time.Second
}

func (k *kernel) parseLink(m []byte) linkInfo {
	msg := nl.DeserializeIfInfomsg(m)
	l := linkInfo{Link: Link{Index: int(msg.Index), PromoteSecondaries: k.promotesAll(), Up: msg.Flags&unix.IFF_UP != 0}}
	alias := ""
	attrs, _ := nl.ParseRouteAttr(m[msg.Len():])
	for _, at := range attrs {
		switch at.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.IFLA_IFNAME:
			l.Name = strings.TrimRight(string(at.Value), "\x00")
		case unix.IFLA_ADDRESS:
			copy(l.hardware[:], at.Value)
			if msg.Type == unix.ARPHRD_ETHER && msg.Flags&unix.IFF_NOARP == 0 && len(at.Value) == len(l.MAC) {
				l.MAC = l.hardware
			}
		case unix.IFLA_LINK:
			l.lower = int(int32(binary.NativeEndian.Uint32(at.Value)))
		case unix.IFLA_IFALIAS:
			alias = strings.TrimRight(string(at.Value), "\x00")
		case unix.IFLA_GROUP:
			l.group = binary.NativeEndian.Uint32(at.Value)
		case unix.IFLA_PROP_LIST:
			l.record, l.recorded = parseNames(at.Value)
		case unix.IFLA_LINKINFO:
			l.macvlan, l.private = parseMacvlan(at.Value)
		case unix.IFLA_AF_SPEC:
			l.PromoteSecondaries = l.PromoteSecondaries || setting(at.Value, promoteSecondary) != 0
			l.arp = arpSettings{ignore: setting(at.Value, confARPIgnore), announce: setting(at.Value, confARPAnnounce)}
		}
	}
	l.Quiet, l.Altered = l.arp == l.arp.quiet(), l.record != ""
	if made, ok := parseLabel(alias); ok && l.macvlan {
		l.label, l.Parent = made, made.parent
	}
	return l
}

// parseNames looks for our record among alternative names, IFLA_PROP_LIST.
func parseNames(b []byte) (record string, before arpSettings) {
	attrs, _ := nl.ParseRouteAttr(b)
	for _, at := range attrs {
		if at.Attr.Type != unix.IFLA_ALT_IFNAME {
			continue
		}
		name := strings.TrimRight(string(at.Value), "\x00")
		if before, ok := parseRecord(name); ok {
			return name, before
		}
	}
	return "", arpSettings{}
}

// parseMacvlan reads IFLA_LINKINFO.
func parseMacvlan(b []byte) (is, private bool) {
	attrs, _ := nl.ParseRouteAttr(b)
	for _, at := range attrs {
		switch at.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.IFLA_INFO_KIND:
			is = strings.TrimRight(string(at.Value), "\x00") == "macvlan"
		case unix.IFLA_INFO_DATA:
			data, _ := nl.ParseRouteAttr(at.Value)
			for _, d := range data {
				if d.Attr.Type == nl.IFLA_MACVLAN_MODE && len(d.Value) == 4 {
					private = binary.NativeEndian.Uint32(d.Value) == nl.MACVLAN_MODE_PRIVATE
				}
			}
		}
	}
	return is, private
}

// setting reads an IPv4 setting out of IFLA_AF_SPEC: AF_INET, IFLA_INET_CONF, an
// array of 32-bit values. /proc would answer for the namespace of whichever
// thread asks.
func setting(spec []byte, which int) uint32 {
	families, _ := nl.ParseRouteAttr(spec)
	for _, f := range families {
		if f.Attr.Type&^unix.NLA_F_NESTED != unix.AF_INET {
			continue
		}
		settings, _ := nl.ParseRouteAttr(f.Value)
		for _, s := range settings {
			if at := 4 * (which - 1); s.Attr.Type == inetConf && len(s.Value) >= at+4 {
				return binary.NativeEndian.Uint32(s.Value[at:])
			}
		}
	}
	return 0
}

func (k *kernel) promotesAll() bool {
	var b [1]byte
	if k.promoteAll == nil {
		return false
	}
	n, err := k.promoteAll.ReadAt(b[:], 0)
	return n == 1 && (err == nil || errors.Is(err, io.EOF)) && b[0] != '0'
}

func (k *kernel) Send(ctx context.Context, index int, frames [][]byte, live func() bool) error {
	return k.out.send(ctx, index, frames, live)
}

// openWatch subscribes to address and link messages. RTM_NEWADDR is thrown away
// by a filter: each renewal of each address on the host sends one, and a flood of
// them would push out the few messages that matter.
func openWatch() (*nl.NetlinkSocket, error) {
	w, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, err
	}
	if w.SetReceiveBufferSize(watchBuffer, true) != nil {
		_ = w.SetReceiveBufferSize(watchBuffer, false) // as much as net.core.rmem_max allows
	}
	// The filter loads in network order; nlmsg_type is in the host's.
	var kind [2]byte
	binary.NativeEndian.PutUint16(kind[:], unix.RTM_NEWADDR)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(binary.BigEndian.Uint16(kind[:])), Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
	}
	err = unix.SetsockoptSockFprog(w.GetFd(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// hear reads the watch until it is closed. The socket survives a lost message
// (ENOBUFS): everybody is told to look at everything again.
func (k *kernel) hear() {
	for {
		msgs, from, err := k.watch.Receive()
		switch {
		case errors.Is(err, os.ErrClosed) || k.isClosed():
			return
		case err != nil:
			k.tell(Notice{Kind: Overflow})
			if !errors.Is(err, unix.ENOBUFS) {
				time.Sleep(100 * time.Millisecond) // an error that stays must not spin
			}
			continue
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range msgs {
			if n, ok := parseNotice(m); ok {
				k.tell(n)
			}
		}
	}
}

func (k *kernel) isClosed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

func parseNotice(m syscall.NetlinkMessage) (Notice, bool) {
	switch m.Header.Type {
	case unix.RTM_DELADDR:
		a, index, ok := parseAddr(m.Data)
		return Notice{Kind: AddrGone, Index: index, Prefix: a.Prefix}, ok
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return Notice{}, false
		}
		n := Notice{Kind: LinkChanged, Index: int(nl.DeserializeIfInfomsg(m.Data).Index)}
		if m.Header.Type == unix.RTM_DELLINK {
			n.Kind = LinkGone
		}
		attrs, _ := nl.ParseRouteAttr(m.Data[unix.SizeofIfInfomsg:])
		for _, at := range attrs {
			if at.Attr.Type == unix.IFLA_IFNAME {
				n.Link = strings.TrimRight(string(at.Value), "\x00")
			}
		}
		return n, true
	}
	return Notice{}, false
}

func (k *kernel) Watch(f func(Notice)) (stop func()) {
	w := &watcher{f: f}
	k.mu.Lock()
	k.watchers[w] = struct{}{}
	k.mu.Unlock()
	return func() {
		k.mu.Lock()
		delete(k.watchers, w)
		k.mu.Unlock()
		w.mu.Lock() // a call under way ends first, and none follows
		w.f = nil
		w.mu.Unlock()
	}
}

func (k *kernel) tell(n Notice) {
	k.mu.Lock()
	all := make([]*watcher, 0, len(k.watchers))
	for w := range k.watchers {
		all = append(all, w)
	}
	k.mu.Unlock()
	for _, w := range all {
		w.mu.Lock()
		if w.f != nil {
			w.f(n)
		}
		w.mu.Unlock()
	}
}
