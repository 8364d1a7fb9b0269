package volume

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// Defaults of Config and Service.
const (
	DefaultCheckTimeout   = 60 * time.Second
	DefaultMountTimeout   = 30 * time.Second
	DefaultUnmountTimeout = 20 * time.Second
	DefaultStartTimeout   = 30 * time.Second
	DefaultStopTimeout    = 30 * time.Second
	// MaxServices is how many services may live on one file system.
	MaxServices = 16
)

// Config says what is on the device.
type Config struct {
	Mount      string        `yaml:"mount"`      // an existing directory; required
	Filesystem string        `yaml:"filesystem"` // ext2, ext3, ext4 or xfs; default ext4
	Options    []string      `yaml:"options"`    // of the mount: noatime ...; default none
	Repair     bool          `yaml:"repair"`     // whether a check that asks for it is done again with "yes" to all
	Check      time.Duration `yaml:"check_timeout"`
	MountTime  time.Duration `yaml:"mount_timeout"`
	Unmount    time.Duration `yaml:"unmount_timeout"`
	Path       []string      `yaml:"path"` // directories in which e2fsck, mount, umount and systemctl are; default those of a login of root
}

// Service is one that lives on the file system. It has either a unit, or commands.
type Service struct {
	Name         string        `yaml:"name"`    // for messages; default the unit, or the program of start
	Unit         string        `yaml:"unit"`    // of systemd
	Start        []string      `yaml:"start"`   // absolute path, then arguments; returns when it has begun to start
	Stop         []string      `yaml:"stop"`    // likewise; fine if it does not run
	PIDFile      string        `yaml:"pidfile"` // of a service with commands: whom to kill if it does not stop
	Probe        []string      `yaml:"probe"`   // exits with 0 when it serves
	TCP          string        `yaml:"tcp"`     // ADDRESS:PORT that takes a connection when it serves
	StartTimeout time.Duration `yaml:"start_timeout"`
	StopTimeout  time.Duration `yaml:"stop_timeout"`
}

// checker is how a file system is checked. The device is the last argument.
type checker struct {
	program     string // "": it needs none, the mount replays its log
	preen, full []string
	passed      []int // exit codes: sound, or mended
	more        []int // exit codes that ask for the full check
}

func checkers() map[string]checker {
	// e2fsck(8): 1 is corrected, 4 is left uncorrected. 2 is corrected too, but asks for
	// a reboot: that is for file systems that are mounted.
	ext := checker{"e2fsck", []string{"-p"}, []string{"-f", "-y"}, []int{0, 1}, []int{4}}
	return map[string]checker{"ext2": ext, "ext3": ext, "ext4": ext, "xfs": {}}
}

func fileSystems() []string { return []string{"ext2", "ext3", "ext4", "xfs"} }

// fill replaces zero values by defaults, and returns all faults.
func (c *Config) fill() (faults []error) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	switch {
	case c.Mount == "":
		fault("volume: mount is required: the directory on which it is mounted")
	case !filepath.IsAbs(c.Mount) || filepath.Clean(c.Mount) != c.Mount || c.Mount == "/":
		fault("volume: mount %q: write an absolute path without . and .., and not /", c.Mount)
	}
	if c.Filesystem == "" {
		c.Filesystem = "ext4"
	}
	if !slices.Contains(fileSystems(), c.Filesystem) {
		fault("volume: filesystem %q: use %s", c.Filesystem, strings.Join(fileSystems(), ", "))
	}
	for _, o := range c.Options {
		if o == "ro" || o == "" || strings.ContainsAny(o, ", \t\n") {
			fault("volume: option %q: one option each, and not ro: it would not be of use", o)
		}
	}
	if len(c.Path) == 0 {
		c.Path = strings.Split(command.SearchPath, ":")
	}
	for _, dir := range c.Path {
		if !filepath.IsAbs(dir) {
			fault("volume: path %q: write absolute paths", dir)
		}
	}
	for _, err := range []error{
		hooks.FillTimeout("check_timeout", &c.Check, DefaultCheckTimeout),
		hooks.FillTimeout("mount_timeout", &c.MountTime, DefaultMountTimeout),
		hooks.FillTimeout("unmount_timeout", &c.Unmount, DefaultUnmountTimeout),
	} {
		if err != nil {
			fault("volume: %w", err)
		}
	}
	return faults
}

// fill replaces zero values by defaults, and returns all faults.
func (s *Service) fill() (faults []error) {
	if s.Name == "" {
		s.Name = s.Unit
	}
	if s.Name == "" && len(s.Start) > 0 {
		s.Name = filepath.Base(s.Start[0])
	}
	fault := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("service %q: "+format, append([]any{s.Name}, a...)...))
	}
	commands := len(s.Start) + len(s.Stop)
	switch {
	case s.Unit == "" && (len(s.Start) == 0 || len(s.Stop) == 0):
		fault("write unit, or both start and stop")
	case s.Unit != "" && commands+len(s.PIDFile) > 0:
		fault("unit and start, stop or pidfile exclude each other")
	case strings.HasPrefix(s.Unit, "-") || strings.ContainsAny(s.Unit, " \t\n/"):
		fault("unit: write the name of one unit, such as mariadb.service")
	}
	if len(s.Probe) == 0 && s.TCP == "" {
		fault("write probe (a command that exits with 0 when it serves) or tcp: that a process was started says nothing")
	}
	if s.TCP != "" {
		if _, err := netip.ParseAddrPort(s.TCP); err != nil {
			fault("tcp %q: write ADDRESS:PORT, such as 127.0.0.1:3306", s.TCP)
		}
	}
	for key, c := range map[string][]string{"start": s.Start, "stop": s.Stop, "probe": s.Probe} {
		if len(c) == 0 {
			continue
		}
		if err := command.CheckPath(c[0]); err != nil {
			fault("%s: %w", key, err)
		}
	}
	if s.PIDFile != "" && !filepath.IsAbs(s.PIDFile) {
		fault("pidfile %q: write an absolute path", s.PIDFile)
	}
	return append(faults, errors.Join(
		hooks.FillTimeout("start_timeout", &s.StartTimeout, DefaultStartTimeout),
		hooks.FillTimeout("stop_timeout", &s.StopTimeout, DefaultStopTimeout)))
}
