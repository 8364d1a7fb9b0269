package link_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
	"golang.org/x/sys/unix"
)

func TestLabAddressesThatMoveWithTheRoleWakeNobody(t *testing.T) {
	h := lab.New(t).Host("a", "192.0.2.1/24")
	fd := -1
	if err := h.DoErr(func() (err error) { fd, err = link.OpenNotes(); return err }); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err := h.DoErr(func() error {
		k, err := vip.Open()
		if err != nil {
			return err
		}
		defer k.Close()
		eth0, err := k.Link("eth0")
		change := vip.Change{Op: vip.Put, Index: eth0.Index, Prefix: netip.MustParsePrefix("192.0.2.9/32"), Valid: vip.Forever, Host: true}
		err = errors.Join(err, k.Apply([]vip.Change{change}))
		change.Op = vip.Remove
		return errors.Join(err, k.Apply([]vip.Change{change}))
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Run("ip", "addr", "add", "192.0.2.10/32", "dev", "eth0")
	h.Run("ip", "addr", "add", "192.0.2.11/32", "dev", "eth0")
	h.Run("ip", "addr", "del", "192.0.2.11/32", "dev", "eth0")
	var all []byte
	notes := 0
	lab.Eventually(t, 2*time.Second, "three notes", func() bool {
		buf := make([]byte, 64<<10)
		if n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT); err == nil {
			all = append(all, buf[:n]...)
			notes++
		}
		return notes == 3
	})
	if bytes.Contains(all, []byte{192, 0, 2, 9}) {
		t.Error("a note about an address that moves with the role came through")
	}
	if !bytes.Contains(all, []byte{192, 0, 2, 10}) || !bytes.Contains(all, []byte{192, 0, 2, 11}) {
		t.Error("notes about other addresses did not come")
	}
}
