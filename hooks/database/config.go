package database

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
	"github.com/carpd/carpd/replicator/install"
)

// Defaults and limits of Config.
const (
	DefaultTries        = 3 // snapshots with which the program is started in one promotion
	MaxTries            = 16
	DefaultStartTimeout = 30 * time.Second
	DefaultStopTimeout  = 20 * time.Second
)

// What is done when the store has no sound snapshot.
const (
	First   = "first"   // the present database is used if there has never been a snapshot; the default
	Keep    = "keep"    // the present database is used if it is sound
	Retreat = "retreat" // this node is not promoted
)

// What becomes of the program when the role goes.
const (
	Stop  = "stop"
	Leave = "keep"  // it goes on; a promotion stops it, or restores into it
	Drain = "drain" // it goes on, and the connections of its clients are ended
)

// Config says where the database and its snapshots are, and how its program is started.
type Config struct {
	Database string `yaml:"database"` // the file that the program opens; required
	Store    string `yaml:"store"`    // directory of snapshots, as in replication; required

	Unit         string        `yaml:"unit"`   // of systemd
	Start        []string      `yaml:"start"`  // absolute path, then arguments; returns when it has begun to start
	Stop         []string      `yaml:"stop"`   // likewise; fine if it does not run
	Status       []string      `yaml:"status"` // exits with 0 when it runs, 1 to 3 or 7 when it does not
	Path         []string      `yaml:"path"`   // directories in which systemctl is; default those of a login of root
	StartTimeout time.Duration `yaml:"start_timeout"`
	StopTimeout  time.Duration `yaml:"stop_timeout"`

	Owner      string           `yaml:"owner"`        // USER or USER:GROUP; default that of the present database
	FileMode   string           `yaml:"file_mode"`    // octal; default 0600
	Keep       int              `yaml:"keep"`         // databases that were here before
	Tries      int              `yaml:"tries"`        // snapshots with which the program is started
	IfNone     string           `yaml:"if_none"`      // first, keep or retreat
	Rows       map[string]int64 `yaml:"rows"`         // least number of rows by table
	MayBeEmpty []string         `yaml:"may_be_empty"` // tables that may have no rows
	OnDemotion string           `yaml:"on_demotion"`  // stop, keep or drain; default stop
}

// fill replaces zero values by defaults, and returns all faults. drains says whether the
// program can be drained.
func (c *Config) fill(drains bool) (faults []error) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	for _, p := range []struct{ key, path, what string }{
		{"database", c.Database, "the file that the program opens"},
		{"store", c.Store, "the directory of snapshots, as in replication:"},
	} {
		switch {
		case p.path == "":
			fault("%s is required: %s", p.key, p.what)
		case !filepath.IsAbs(p.path) || filepath.Clean(p.path) != p.path:
			fault("%s %q: write an absolute path, and none with . or .. in it", p.key, p.path)
		}
	}
	if c.Database != "" && c.Store == filepath.Dir(c.Database) {
		fault("store %q: it is the directory of the database: snapshots need one of their own", c.Store)
	}
	faults = append(faults, c.fillService()...)
	c.Tries, c.Keep = cmp.Or(c.Tries, DefaultTries), cmp.Or(c.Keep, install.DefaultKeep)
	if c.Tries < 1 || c.Tries > MaxTries {
		fault("tries %d: use 1 to %d", c.Tries, MaxTries)
	}
	if c.Keep < 1 || c.Keep > install.MaxKeep {
		fault("keep %d: use 1 to %d", c.Keep, install.MaxKeep)
	}
	c.IfNone = cmp.Or(c.IfNone, First)
	if words := []string{First, Keep, Retreat}; !slices.Contains(words, c.IfNone) {
		fault("if_none %q: use %s", c.IfNone, strings.Join(words, ", "))
	}
	c.OnDemotion = cmp.Or(c.OnDemotion, Stop)
	words := []string{Stop, Leave}
	if drains {
		words = append(words, Drain)
	}
	if !slices.Contains(words, c.OnDemotion) {
		fault("on_demotion %q: use %s", c.OnDemotion, strings.Join(words, ", "))
	}
	for table, n := range c.Rows {
		if table == "" || n < 0 {
			fault("rows: %q: %d: write TABLE: N, with N 0 or more", table, n)
		}
	}
	if _, err := parseMode(c.FileMode); err != nil {
		faults = append(faults, err)
	}
	if _, err := parseOwner(c.Owner); err != nil {
		faults = append(faults, err)
	}
	return faults
}

// fillService looks at how the program is started.
func (c *Config) fillService() (faults []error) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	switch {
	case c.Unit == "" && (len(c.Start) == 0 || len(c.Stop) == 0 || len(c.Status) == 0):
		fault("write unit, or all of start, stop and status")
	case c.Unit != "" && len(c.Start)+len(c.Stop)+len(c.Status) > 0:
		fault("unit and start, stop or status exclude each other")
	case strings.HasPrefix(c.Unit, "-") || strings.ContainsAny(c.Unit, " \t\n/"):
		fault("unit %q: write the name of one unit, such as proxysql.service", c.Unit)
	}
	if len(c.Path) == 0 {
		c.Path = strings.Split(command.SearchPath, ":")
	}
	for _, dir := range c.Path {
		if !filepath.IsAbs(dir) {
			fault("path %q: write absolute paths", dir)
		}
	}
	for key, argv := range map[string][]string{"start": c.Start, "stop": c.Stop, "status": c.Status} {
		if len(argv) == 0 {
			continue
		}
		if err := command.CheckPath(argv[0]); err != nil {
			fault("%s: %w", key, err)
		}
	}
	return append(faults, errors.Join(
		hooks.FillTimeout("start_timeout", &c.StartTimeout, DefaultStartTimeout),
		hooks.FillTimeout("stop_timeout", &c.StopTimeout, DefaultStopTimeout)))
}

// parseMode reads "0640".
func parseMode(s string) (fs.FileMode, error) {
	if s == "" {
		return install.DefaultMode, nil
	}
	n, err := strconv.ParseUint(s, 8, 12)
	if mode := fs.FileMode(n); err == nil && mode&^0o666 == 0 && mode&0o600 == 0o600 {
		return mode, nil
	}
	return 0, fmt.Errorf("file_mode %q: write it in octal, in quotes: \"0600\", \"0640\" or \"0660\"; no execution, and its owner reads and writes", s)
}

// parseOwner reads USER or USER:GROUP; nil if it is not given.
func parseOwner(s string) (*install.Owner, error) {
	if s == "" {
		return nil, nil
	}
	name, group, grouped := strings.Cut(s, ":")
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("owner %q: no such user on this machine", s)
	}
	gid := u.Gid
	if grouped {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("owner %q: no such group on this machine", s)
		}
		gid = g.Gid
	}
	o := install.Owner{}
	var errU, errG error
	o.UID, errU = strconv.Atoi(u.Uid)
	o.GID, errG = strconv.Atoi(gid)
	return &o, errors.Join(errU, errG)
}
