package glb

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func destination(t *testing.T, text string) (d Destination) {
	t.Helper()
	if err := d.UnmarshalText([]byte(text)); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

func TestDestinationsAreReadAndWrittenAsGLBTakesThem(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.11:3306": "192.0.2.11:3306:1", "192.0.2.11:3306:0.5": "192.0.2.11:3306:0.5", "192.0.2.11:3306:0": "192.0.2.11:3306:0",
		"192.0.2.11:3306:-1": "192.0.2.11:3306:-1", "192.0.2.11:3306:100": "192.0.2.11:3306:100",
	} {
		if got := destination(t, text).String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{
		"", "192.0.2.11", "192.0.2.11:", "192.0.2.11:0", "192.0.2.11:70000", "db1:3306", "[2001:db8::1]:3306", "2001:db8::1:3306",
		"192.0.2.11:3306:much", "192.0.2.11:3306:NaN", "192.0.2.11:3306:1:2", "192.0.2.11:3306:0.0001",
	} {
		if err := new(Destination).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}

const told = `Router:
------------------------------------------------------
        Address       :   weight   usage    map  conns
     192.0.2.11:3306  :    1.000   0.667    N/A      2
     192.0.2.12:3306  :    0.333   0.000    N/A      0
     192.0.2.13:3306  :    0.000   1.000  0.125      7
------------------------------------------------------
Destinations: 3, total connections: 9 of 493 max
`

func TestInfoIsRead(t *testing.T) {
	got, err := parseInfo(told)
	want := table{conns: 9, most: 493, rows: []entry{
		{netip.MustParseAddrPort("192.0.2.11:3306"), 1, 2}, {netip.MustParseAddrPort("192.0.2.12:3306"), 0.333, 0}, {netip.MustParseAddrPort("192.0.2.13:3306"), 0, 7},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	// As it was before version 1: without map, without a maximum.
	old := strings.NewReplacer("    N/A", "", "  0.125", "", "    map", "", " of 493 max", "").Replace(told)
	want.most = 0
	if got, err := parseInfo(old); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for name, said := range map[string]string{
		"empty": "", "cut off": told[:len(told)-60], "a row is missing": strings.Replace(told, "     192.0.2.12:3306  :    0.333   0.000    N/A      0\n", "", 1),
		"no number": strings.Replace(told, "0.333", "weigh", 1), "an error": "Error\n",
	} {
		if got, err := parseInfo(said); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestWhatIsOtherwiseThanWishedIsFound(t *testing.T) {
	is, err := parseInfo(told)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		wished []string
		wrong  int
		busy   int
	}{
		{"as it is", []string{"192.0.2.11:3306", "192.0.2.12:3306:0.3333", "192.0.2.13:3306:0"}, 0, 7},
		{"other weight", []string{"192.0.2.11:3306:2"}, 1, 0},
		{"not there", []string{"192.0.2.14:3306"}, 1, 0},
		{"other port", []string{"192.0.2.11:3307"}, 1, 0},
		{"removed, and there", []string{"192.0.2.11:3306:-1"}, 1, 2},
		{"removed, and not there", []string{"192.0.2.14:3306:-1"}, 0, 0},
		{"drained, and not there", []string{"192.0.2.14:3306:0"}, 1, 0},
	} {
		var wished []Destination
		for _, text := range c.wished {
			wished = append(wished, destination(t, text))
		}
		if wrong := is.wrong(wished); len(wrong) != c.wrong {
			t.Errorf("%s: %v is wrong, want %d", c.name, wrong, c.wrong)
		}
		if busy := is.busy(wished); busy != c.busy {
			t.Errorf("%s: %d connections, want %d", c.name, busy, c.busy)
		}
	}
}

func TestConfigurationFaultsAreToldAllAtOnce(t *testing.T) {
	twice := destination(t, "192.0.2.11:3306")
	_, err := NewResource(Config{Control: "8011", Destinations: []Destination{twice, twice}, DrainTime: -1, MinServed: -1})
	for _, want := range []string{"control:", "given twice", "drain_time:", "min_served:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	one := []Destination{twice}
	if _, err := NewResource(Config{Control: "127.0.0.1:8011", Destinations: one, Standby: one}); err == nil || !strings.Contains(err.Error(), "the same") {
		t.Errorf("both roles alike: %v", err)
	}
	if _, err := New(Config{Control: "127.0.0.1:8011"}); err == nil || !strings.Contains(err.Error(), "destinations: required") {
		t.Errorf("no destinations: %v", err)
	}
	if _, err := NewMonitor(Config{Control: "127.0.0.1:8011", Destinations: one}); err == nil {
		t.Error("a monitor with destinations passes")
	}
}

func TestStatisticsAreRead(t *testing.T) {
	const said = "in: 12 out: 34 recv: 56 / 7 send: 89 / 10 conns: 11 / 4 poll: 1 / 2 / 3 elapsed: 1.50000\n"
	if got, err := parseStat(said); err != nil || got != (statistics{received: 56, sent: 89, opened: 11, elapsed: 1.5}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, said := range []string{"", "Error\n", "in: 12 out: 34 recv: 56 / 7\n"} {
		if got, err := parseStat(said); err == nil {
			t.Errorf("%q: %+v", said, got)
		}
	}
}
