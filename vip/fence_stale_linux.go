package vip

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// RemoveStaleFences removes the fences that dead daemons left, closed, in the network
// namespace of k and of the calling thread, and returns their names. Our addresses
// behind one are taken off first, on whatever interface they are, as by Cleanup:
// without it they would answer beside those of the next master, until their lease
// ends. A fence stays if that fails. Addresses in held are a living instance's by now,
// and stay. Where there can be no fence there is none.
func RemoveStaleFences(k Kernel, held ...netip.Addr) (fences []string, removed []Removed, err error) {
	sock, err := openFilterSocket()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, noFence(err)
	}
	defer sock.close()
	f := &filter{sock: sock}
	fences, err = f.removeStale(func(name string) error {
		off, err := takeOff(k, f.behind(name), held)
		removed = append(removed, off...)
		return err
	})
	return fences, removed, err
}

// takeOff removes what is behind a fence, but for what is held.
func takeOff(k Kernel, behind map[string][]netip.Prefix, held []netip.Addr) (removed []Removed, err error) {
	for link, prefixes := range behind {
		prefixes = slices.DeleteFunc(prefixes, func(p netip.Prefix) bool { return slices.Contains(held, p.Addr()) })
		if len(prefixes) == 0 {
			continue // to Cleanup, none named means all
		}
		var links []string
		if link != "" {
			links = []string{link}
		}
		off, e := Cleanup(k, links, prefixes)
		removed, err = append(removed, off...), errors.Join(err, e)
	}
	return removed, err
}

// behind lists the addresses of the fence with this name, whosever it is, by the
// interface on which they count, "" for all.
func (f *filter) behind(name string) map[string][]netip.Prefix {
	all := map[string][]netip.Prefix{}
	for _, s := range filterSets() {
		if s.family != unix.NFPROTO_INET || s.keyType == typeMark {
			continue
		}
		of := attrs{}.text(unix.NFTA_SET_ELEM_LIST_TABLE, name).text(unix.NFTA_SET_ELEM_LIST_SET, s.name)
		// A set that is not there has no addresses, and neither has what is no address.
		_ = f.sock.dump(unix.NFT_MSG_GETSETELEM, s.family, of, func(a map[uint16][]byte) {
			_ = eachAttr(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, element []byte) {
				key, link := parseAttrs(parseAttrs(element)[unix.NFTA_SET_ELEM_KEY])[unix.NFTA_DATA_VALUE], ""
				if s.name == setLinks && len(key) > sizeName {
					link, key = string(bytes.TrimRight(key[:sizeName], "\x00")), key[sizeName:]
				}
				if addr, ok := netip.AddrFromSlice(key); ok {
					all[link] = append(all[link], host(addr))
				}
			})
		})
	}
	return all
}
