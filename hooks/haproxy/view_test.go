package haproxy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/carpd/carpd/hooks"
)

// What HAProxy 2.6.12 says, shortened to the columns up to type.
const statText = `# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,
db,FRONTEND,,,3,5,200,9,0,0,0,0,0,,,,,OPEN,,,,,,,,,1,2,0,,,,0,0,
db,one,0,0,2,5,,9,0,0,,0,,0,0,0,0,UP 1/3,1,1,0,0,0,0,0,,1,2,1,,0,,2,0,
db,two,0,0,1,0,,0,0,0,,0,,0,0,0,0,DOWN 1/2,1,1,0,1,1,0,0,,1,2,2,,0,,2,0,
db,three,0,0,0,0,,0,0,0,,0,,0,0,0,0,MAINT,1,1,0,1,1,0,0,,1,2,3,,0,,2,0,
db,BACKEND,0,0,3,0,20,9,0,0,0,0,,0,0,0,0,UP,1,1,0,,0,0,0,,1,2,0,,0,,1,0,
read,FRONTEND,,,0,0,200,0,0,0,0,0,0,,,,,PAUSED,,,,,,,,,1,3,0,,,,0,0,
pool,four,0,0,0,0,,0,0,0,,0,,0,0,0,0,no check,1,1,0,,,0,,,1,4,1,,0,,2,0,
pool,five,0,0,0,0,,0,0,0,,0,,0,0,0,0,DRAIN,1,1,0,,,0,,,1,4,2,,0,,2,0,

`

func sample(t *testing.T) view {
	t.Helper()
	v, err := parseInfo("Name: HAProxy\nVersion: 2.6.12-1\nPid: 4711\nStopping: 0\n\n")
	if err == nil {
		v.rows, err = parseStat(statText)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestServersThatGetConnectionsAreCounted(t *testing.T) {
	v := sample(t)
	for backend, want := range map[string][2]int{"db": {1, 3}, "pool": {1, 2}, "none": {0, 0}} {
		if up, all := v.servers(backend); up != want[0] || all != want[1] {
			t.Errorf("%s: %d of %d are up, want %v", backend, up, all, want)
		}
	}
	if got := v.backends(); !reflect.DeepEqual(got, []string{"db", "pool"}) {
		t.Errorf("backends with servers: %v", got)
	}
}

func TestHealthIsThatOfTheWorstBackend(t *testing.T) {
	v := sample(t)
	stopping := v
	stopping.stopping = true
	for _, c := range []struct {
		name   string
		config Config
		view   view
		want   hooks.Health
		text   string
	}{
		{"all have a server", Config{MinServers: 1}, v, hooks.Healthy, "process 4711"},
		{"fewer than wanted", Config{MinServers: 2}, v, hooks.Degraded, "1 of the 3 servers of backend db"},
		{"of those named", Config{MinServers: 1, Backends: []string{"pool"}}, v, hooks.Healthy, "4711"},
		{"none of that name", Config{MinServers: 1, Backends: []string{"dbs"}}, v, hooks.Unfit, "is the name right"},
		{"stopping", Config{MinServers: 1}, stopping, hooks.Unfit, "stopping"},
		{"not there", Config{MinServers: 1}, view{}, hooks.Unfit, "does not run"},
	} {
		if health, text := c.config.fit(c.view); health != c.want || !strings.Contains(text, c.text) {
			t.Errorf("%s: %v, %q; want %v, %q", c.name, health, text, c.want, c.text)
		}
	}
	for i := range v.rows {
		if v.rows[i].name == "one" {
			v.rows[i].status = "DOWN"
		}
	}
	if health, text := (&Config{MinServers: 1}).fit(v); health != hooks.Unfit {
		t.Errorf("no server of db is up, and it is %v: %s", health, text)
	}
}

func TestRoleIsToldFromTheProcess(t *testing.T) {
	v := sample(t)
	stopping := v
	stopping.stopping = true
	closed := func(names ...string) Config { return Config{Standby: Closed, Frontends: names} }
	for _, c := range []struct {
		name   string
		config Config
		view   view
		want   hooks.Role
	}{
		{"open", closed("db"), v, hooks.RolePromoted},
		{"paused", closed("read"), v, hooks.RoleDemoted},
		{"half", closed("db", "read"), v, hooks.RoleUnknown},
		{"no such frontend", closed("write"), v, hooks.RoleUnknown},
		{"closed, not running", closed("db"), view{}, hooks.RoleDemoted},
		{"stopped", Config{Standby: Stopped}, view{}, hooks.RoleDemoted},
		{"stopping", Config{Standby: Stopped}, stopping, hooks.RoleUnknown},
		{"running", Config{Standby: Stopped}, v, hooks.RolePromoted},
	} {
		if got, text := c.config.role(c.view); got != c.want {
			t.Errorf("%s: %v (%s), want %v", c.name, got, text, c.want)
		}
	}
}

func TestAnswersThatAreNoneAreRefused(t *testing.T) {
	for _, said := range []string{"", "Unknown command.", "Pid: x\n"} {
		if _, err := parseInfo(said); err == nil {
			t.Errorf("show info: %q passes", said)
		}
		if _, err := parseStat(said); err == nil {
			t.Errorf("show stat: %q passes", said)
		}
		if _, err := parseProc(said); err == nil {
			t.Errorf("show proc: %q passes", said)
		}
	}
}

func TestMasterTellsAFailedReload(t *testing.T) {
	proc := func(reloads, failed, workers string) masterView {
		m, err := parseProc("#<PID>          <type>          <reloads>       <uptime>        <version>\n" +
			"12962           master          " + reloads + " " + failed + "   0d00h00m03s     2.6.12\n" +
			"# workers\n" + workers + "# old workers\n1233            worker          3               0d00h00m43s     2.6.12\n# programs\n\n")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	const first, second = "12983           worker          0               0d00h00m00s     2.6.12\n", "12999           worker          0               0d00h00m00s     2.6.12\n"
	before := proc("1", "[failed: 0]", first)
	if before.pid != 12962 || before.reloads != 1 || !reflect.DeepEqual(before.workers, []int{12983}) {
		t.Fatalf("%+v", before)
	}
	for _, c := range []struct {
		name        string
		before, now masterView
		want        bool
	}{
		{"not yet", before, before, false},
		{"worked", before, proc("2", "[failed: 0]", second), false},
		{"failed", before, proc("2", "[failed: 1]", first), true},
		{"failed again", proc("2", "[failed: 1]", first), proc("3", "[failed: 2]", first), true},
		{"failed before, not yet", proc("2", "[failed: 1]", first), proc("2", "[failed: 1]", first), false},
		{"no master is known", masterView{}, proc("2", "[failed: 1]", first), false},
	} {
		if got := failedSince(c.before, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestConfigurationFaultsAreToldAllAtOnce(t *testing.T) {
	_, err := NewResource(Config{Socket: "admin.sock", Standby: "off", Mode: "fast", Action: Start, Unit: "a", PIDFile: "b", Config: "x.cfg", Backends: []string{"a;b"}, MinServers: -1})
	for _, want := range []string{"socket:", "standby", "mode", "action", "unit and pid_file", "pid_file:", "config:", "a;b", "min_servers"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	base := Config{Socket: "/run/haproxy/admin.sock", PIDFile: "/run/haproxy.pid"}
	if _, err := NewResource(base); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"frontends: standby: closed": func(c *Config) { c.Standby = Closed },
		"only standby: closed":       func(c *Config) { c.Frontends = []string{"db"} },
		"required where systemd":     func(c *Config) { c.PIDFile = "" },
		"has no master":              func(c *Config) { c.Mode, c.Master = Classic, "/run/master.sock" },
		"a resource has none":        func(c *Config) { c.Candidate = "/etc/haproxy/new.cfg" },
	} {
		c := base
		change(&c)
		if _, err := NewResource(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	elsewhere := base
	elsewhere.Candidate = "/tmp/new.cfg"
	if _, err := New(elsewhere); err == nil || !strings.Contains(err.Error(), "takes the place") {
		t.Errorf("a candidate in another directory: %v", err)
	}
	if _, err := NewMonitor(Config{Socket: "/run/haproxy/admin.sock", Candidate: "/etc/haproxy/new.cfg"}); err == nil {
		t.Error("a monitor with a candidate passes")
	}
}

func TestListeningSocketsAreHandedOverOnlyWhereTheConfigurationSaysSo(t *testing.T) {
	for text, want := range map[string]bool{
		"global\n  stats socket /a level admin expose-fd listeners\n":    true,
		"global\n\tstats  socket /a  expose-fd  listeners level admin\n": true,
		"global\n  stats socket /a # expose-fd listeners\n":              false,
		"global\n  stats socket /a\n":                                    false,
	} {
		path := t.TempDir() + "/cfg"
		write(t, path, text)
		if got, err := exposes(path); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
