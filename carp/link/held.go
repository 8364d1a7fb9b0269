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

// Claim is one vhid on one interface, which one process of a network namespace
// can have at a time.
type Claim struct {
	Interface string
	VHID      uint8
}

// String returns "IF/VHID".
func (c Claim) String() string { return fmt.Sprintf("%s/%d", c.Interface, c.VHID) }

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
		return cmp.Or(strings.Compare(a.Interface, b.Interface), int(a.VHID)-int(b.VHID))
	})
	return held
}

func parseClaim(name string) (Claim, bool) {
	link, number, _ := strings.Cut(name, "/")
	vhid, err := strconv.ParseUint(number, 10, 8)
	c := Claim{link, uint8(vhid)}
	return c, err == nil && vhid > 0 && c.String() == name
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
