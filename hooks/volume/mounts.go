package volume

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountTable is that of this process. Services see it too, unless their unit, or the
// daemon's, asks for a mount namespace of its own.
const mountTable = "/proc/self/mountinfo"

// mount is one line of a mount table, proc_pid_mountinfo(5).
type mount struct {
	device  string // MAJOR:MINOR
	point   string
	kind    string // of file system
	options []string
}

func (m mount) readOnly() bool { return slices.Contains(m.options, "ro") }

// parseMounts reads a mount table. Lines of an unknown form are left out.
func parseMounts(table string) (all []mount) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+4 {
			continue
		}
		all = append(all, mount{
			device: f[2], point: unescape(f[4]), kind: f[dash+1],
			// Those of the mount, and those of the file system: an error makes only the latter "ro".
			options: append(strings.Split(f[5], ","), strings.Split(f[dash+3], ",")...),
		})
	}
	return all
}

// unescape undoes \040 and its like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// at returns what is mounted on a directory, the topmost last.
func at(all []mount, point string) (here []mount) {
	for _, m := range all {
		if m.point == point {
			here = append(here, m)
		}
	}
	return here
}

// of returns where a device is mounted.
func of(all []mount, device string) (points []string) {
	for _, m := range all {
		if m.device == device {
			points = append(points, m.point)
		}
	}
	return points
}

// below returns what is mounted on directories within one.
func below(all []mount, point string) (points []string) {
	for _, m := range all {
		if strings.HasPrefix(m.point, point+"/") {
			points = append(points, m.point)
		}
	}
	return points
}

// verify says what is wrong with a mount that should be there: of this device, there, for
// writing. What a mount program says proves none of that.
func verify(all []mount, point, device, kind string) error {
	here := at(all, point)
	if len(here) == 0 {
		return fmt.Errorf("nothing is mounted on %s", point)
	}
	top := here[len(here)-1]
	switch {
	case top.device != device:
		return fmt.Errorf("device %s is mounted on %s, not %s: unmount it", top.device, point, device)
	case len(here) > 1:
		return fmt.Errorf("%s is mounted %d times: unmount it", point, len(here))
	case top.kind != kind:
		return fmt.Errorf("%s is mounted as %s, not %s", point, top.kind, kind)
	case top.readOnly():
		return fmt.Errorf("%s is mounted read-only: the file system has errors, see the kernel's log; unmount and check it", point)
	}
	return nil
}

func readMounts() ([]mount, error) {
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return nil, fmt.Errorf("volume: read the mount table: %w", err)
	}
	return parseMounts(string(table)), nil
}

// deviceNumber returns the MAJOR:MINOR of a block device.
func deviceNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("volume: look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("volume: %s is no block device", path)
	}
	return number(st.Rdev), nil
}

func number(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// IsDevice reports whether a path leads to a block device that can be opened for reading.
func IsDevice(path string) bool {
	if _, err := deviceNumber(path); err != nil {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}
