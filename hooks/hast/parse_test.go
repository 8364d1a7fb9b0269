package hast

import (
	"slices"
	"strings"
	"testing"
)

// The texts are what hastctl of FreeBSD writes, with the fields in its order.
const (
	listPrimary = `test:
  role: primary
  provname: test
  localpath: /dev/ad6
  extentsize: 2097152 (2.0MB)
  keepdirty: 64
  remoteaddr: 192.168.1.52
  sourceaddr: 192.168.1.51
  replication: memsync
  status: complete
  workerpid: 1234
  dirty: 4194304 (4.0MB)
  statistics:
    reads: 13
    writes: 521
    deletes: 0
    flushes: 0
    activemap updates: 12
    local errors: read: 0, write: 0, delete: 0, flush: 0
    queues: local: 0, send: 0, recv: 0, done: 0, idle: 255
`
	listOthers = `one:
  role: secondary
  provname: one
  localpath: /dev/ada1p1
  extentsize: 2097152 (2.0MB)
  keepdirty: 0
  remoteaddr: tcp4://10.0.0.1
  replication: fullsync
  dirty: 0 (0B)
  statistics:
    reads: 0
two:
  error: 1
three:
  role: init
  provname: three
  localpath: /dev/ada1p3
  extentsize: 0 (0B)
  keepdirty: 0
  remoteaddr: none
  replication: unknown
  dirty: 0 (0B)
`
	// status of FreeBSD 8: no worker, no errors, no queues.
	oldStatus = `test:
  role: secondary
  provname: test
  localpath: /dev/ad6
  extentsize: 2097152
  keepdirty: 0
  remoteaddr: 192.168.1.51
  replication: memsync
  status: complete
  dirty: 0 bytes
  statistics:
    reads: 0
    writes: 0
    deletes: 0
    flushes: 0
    activemap updates: 0
`
	table = "Name\tStatus\t Role\t\tComponents\n" +
		"test\tcomplete primary        /dev/ad6\t192.168.1.52\n" +
		"idle\t-        init           /dev/ad7\tnone\n" +
		"gone\tERR1\n"
	dumpText = `resource: test
    datasize: 4294967296 (4.0GB)
    extentsize: 2097152 (2.0MB)
    keepdirty: 64
    localoff: 1052672 (1.0MB)
    resuid: 11726343914364361237
    localcnt: 3
    remotecnt: 2
    prevrole: primary
`
)

func TestListStatusAndTableAreUnderstood(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []Status
	}{
		{"list", listPrimary, []Status{{Name: "test", Role: Primary, Provider: "test", Local: "/dev/ad6", Remote: "192.168.1.52",
			Replication: "memsync", Status: "complete", Worker: 1234, Dirty: 4194304, Counted: true}}},
		{"list of several", listOthers, []Status{
			{Name: "one", Role: Secondary, Provider: "one", Local: "/dev/ada1p1", Remote: "tcp4://10.0.0.1", Replication: "fullsync", Counted: true},
			{Name: "two", Error: 1},
			{Name: "three", Role: Init, Provider: "three", Local: "/dev/ada1p3", Remote: "none", Replication: "unknown", Counted: true}}},
		{"status of FreeBSD 8", oldStatus, []Status{{Name: "test", Role: Secondary, Provider: "test", Local: "/dev/ad6",
			Remote: "192.168.1.51", Replication: "memsync", Status: "complete", Counted: true}}},
		{"table", table, []Status{
			{Name: "test", Role: Primary, Local: "/dev/ad6", Remote: "192.168.1.52", Status: "complete"},
			{Name: "idle", Role: Init, Local: "/dev/ad7", Remote: "none"},
			{Name: "gone", Error: 1}}},
		{"nothing", "", nil},
	} {
		got, err := ParseStatus(tc.text)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", tc.name, err, got, tc.want)
		}
	}
}

func TestWhatIsNoAnswerOfHastctlIsAnError(t *testing.T) {
	for _, text := range []string{
		"  role: primary\n", "nonsense\n", "test:\n  workerpid: none\n", "test:\n  dirty: much\n",
		"Name\tStatus\t Role\t\tComponents\ntest\tcomplete\n", "Name\tStatus\n" + "x\tERRx\n",
	} {
		if got, err := ParseStatus(text); err == nil {
			t.Errorf("%q gives %+v", text, got)
		}
	}
	for _, text := range []string{listOthers, "test:\n  keepdirty: 0\n", ""} {
		for _, name := range []string{"two", "test"} {
			all, err := ParseStatus(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ofResource(all, name); err == nil {
				t.Errorf("%q is found in %q", name, text)
			}
		}
	}
}

func TestDumpIsUnderstoodAfterAList(t *testing.T) {
	o, err := readOther(listPrimary+dumpText, "test")
	if err != nil {
		t.Fatal(err)
	}
	want := Dump{Name: "test", DataSize: 4294967296, Resource: 11726343914364361237, LocalCnt: 3, RemoteCnt: 2, PrevRole: "primary"}
	if o.Role != Primary || o.dump == nil || *o.dump != want {
		t.Errorf("got %+v, %+v", o.Status, o.dump)
	}
	if o, err := readOther(listPrimary, "test"); err != nil || o.dump != nil {
		t.Errorf("without a dump: %+v, %v", o, err)
	}
	if _, err := readOther(strings.Replace(listPrimary+dumpText, "localcnt: 3", "localcnt: x", 1), "test"); err == nil {
		t.Error("a counter that is no number is taken")
	}
}

func TestSplitBrainIsThatBothHaveWrittenAlone(t *testing.T) {
	for _, tc := range []struct {
		aLocal, aRemote, bLocal, bRemote uint64
		want                             bool
	}{
		{1, 1, 1, 1, false},
		{2, 1, 1, 1, false}, // a wrote alone
		{1, 1, 2, 1, false}, // b did
		{2, 1, 2, 1, true},
		{3, 2, 2, 3, false}, // both were heard
		{3, 1, 2, 2, true},
	} {
		a, b := Dump{LocalCnt: tc.aLocal, RemoteCnt: tc.aRemote}, Dump{LocalCnt: tc.bLocal, RemoteCnt: tc.bRemote}
		if got := split(a, b); got != tc.want || split(b, a) != got {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func FuzzAnswersOfHastctl(f *testing.F) {
	for _, text := range []string{listPrimary, listOthers, oldStatus, table, listPrimary + dumpText} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := readOther(text, "test")
		if (o == nil) == (err == nil) {
			t.Errorf("%+v and %v", o, err)
		}
	})
}
