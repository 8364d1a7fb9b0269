package link

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Claim is one id on one interface, which one process of a network namespace can
// have at a time for each Kind.
type Claim struct {
	Interface string
	VHID      uint8 // or VRID
	Kind      Kind
}

// String returns "IF/VHID", "IF/vrrp4/VRID" or "IF/vrrp6/VRID".
func (c Claim) String() string { return fmt.Sprintf("%s/%s%d", c.Interface, c.Kind.path(), c.VHID) }

// object names the claim in messages.
func (c Claim) object() string { return object(c.Kind, c.VHID, c.Interface) }

// address is the abstract name that stands for the claim.
func (c Claim) address() *unix.SockaddrUnix { return &unix.SockaddrUnix{Name: "@carpd/" + c.String()} }

// Held lists what processes of this network namespace have claimed, this one
// among them, sorted: where nothing is held, no daemon is running. A name that
// a user without the privileges of a daemon has bound is no claim. It returns
// nothing where /proc cannot be read.
func Held() []Claim {
	f, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil
	}
	defer f.Close()
	var held []Claim
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if _, name, ok := strings.Cut(lines.Text(), " @carpd/"); ok {
			if c, ok := parseClaim(name); ok && !slices.Contains(held, c) && c.honoured() {
				held = append(held, c)
			}
		}
	}
	slices.SortFunc(held, func(a, b Claim) int {
		return cmp.Or(strings.Compare(a.Interface, b.Interface), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.VHID, b.VHID))
	})
	return held
}

// parseClaim is the inverse of Claim.String.
func parseClaim(name string) (Claim, bool) {
	link, rest, _ := strings.Cut(name, "/")
	c := Claim{Interface: link}
	for _, k := range []Kind{KindVRRP4, KindVRRP6} {
		if strings.HasPrefix(rest, k.path()) {
			c.Kind = k
		}
	}
	id, err := strconv.ParseUint(strings.TrimPrefix(rest, c.Kind.path()), 10, 8)
	c.VHID = uint8(id)
	return c, err == nil && id > 0 && c.String() == name
}

// honoured reports whether a daemon may be behind the name: in doubt it is,
// unless nobody listens there.
func (c Claim) honoured() bool {
	cred, err := holder(c.address())
	if err != nil {
		return !errors.Is(err, unix.ECONNREFUSED)
	}
	return trusted(cred)
}
