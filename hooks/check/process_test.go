package check_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/check"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/test/lab"
)

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

// program starts a copy of sleep with a name of its own, and a file of its number.
func program(t *testing.T, name string) (cmd *exec.Cmd, pidfile string) {
	t.Helper()
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(path, "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	lab.Eventually(t, soon, "the copy to be closed by all forks", func() bool { err = cmd.Start(); return err == nil })
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pidfile = filepath.Join(dir, "pid")
	if err := os.WriteFile(pidfile, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return cmd, pidfile
}

func process(t *testing.T, c check.ProcessConfig) hooks.Monitor {
	t.Helper()
	m, err := check.NewProcess(c)
	return opened(t, m, err)
}

// ownName is a name that no other process has, as long as the kernel keeps.
func ownName(t *testing.T) string {
	return fmt.Sprintf("chk-%d", os.Getpid())[:min(15, 4+len(strconv.Itoa(os.Getpid())))]
}

func TestProcessThatEndsIsUnfitBeforeItIsWaitedFor(t *testing.T) {
	name := ownName(t) + "-e"
	cmd, pidfile := program(t, name)
	ways := map[string]hooks.Monitor{
		"pidfile":          process(t, check.ProcessConfig{Pidfile: pidfile}),
		"pidfile and name": process(t, check.ProcessConfig{Pidfile: pidfile, Name: name}),
		"pid":              process(t, check.ProcessConfig{PID: cmd.Process.Pid}),
		"name":             process(t, check.ProcessConfig{Name: name}),
	}
	for way, m := range ways {
		t.Run(way, func(t *testing.T) { says(t, m, hooks.Healthy, strconv.Itoa(cmd.Process.Pid)) })
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, soon, "the end", func() bool { // without waiting for it: it is a zombie
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return strings.Contains(string(stat), ") Z ")
	})
	for way, m := range ways {
		t.Run(way+", dead", func(t *testing.T) { says(t, m, hooks.Unfit, "run") })
	}
	_ = cmd.Wait()
	for way, m := range ways {
		t.Run(way+", gone", func(t *testing.T) { says(t, m, hooks.Unfit, "run") })
	}
	if err := os.Remove(pidfile); err != nil {
		t.Fatal(err)
	}
	says(t, ways["pidfile"], hooks.Unfit, "there is no "+pidfile)
}

func TestProcessOfAnotherNameIsNotIt(t *testing.T) {
	_, pidfile := program(t, ownName(t)+"-o")
	says(t, process(t, check.ProcessConfig{Pidfile: pidfile, Name: "haproxy"}), hooks.Unfit, "another program")
	says(t, process(t, check.ProcessConfig{Name: "no-such-program"}), hooks.Unfit, "no process of")
}

func TestPidfileThatHoldsNoNumberIsAFault(t *testing.T) {
	for _, text := range []string{"", "x", "-1", "0", "99999999999999999999"} {
		blind(t, process(t, check.ProcessConfig{Pidfile: file(t, "pid", text)}), "first line")
	}
}

func TestEndOfAProcessIsNoticedAtOnce(t *testing.T) {
	name := ownName(t) + "-w"
	cmd, pidfile := program(t, name)
	for n, c := range []check.ProcessConfig{{Pidfile: pidfile}, {Name: name}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			m := process(t, c)
			looks := awake(t, m, func(f func()) error { f(); return nil })
			lab.Eventually(t, soon, "the first look to be asked for", func() bool { return looks() == 1 })
			says(t, m, hooks.Healthy, "")
			says(t, m, hooks.Healthy, "")
			if looks() != 1 {
				t.Errorf("%d looks while nothing happens", looks())
			}
			if n == 1 { // the last way
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				lab.Eventually(t, soon, "a look", func() bool { return looks() == 2 })
				says(t, m, hooks.Unfit, "run")
			}
		})
	}
}

func TestProcessesOfAUnitAreFoundByTheirCgroup(t *testing.T) {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		root = "/sys/fs/cgroup/unified"
	}
	unit := ownName(t) + ".service"
	group := filepath.Join(root, unit)
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no cgroup can be made here: %v", err)
	}
	cmd, _ := program(t, ownName(t)+"-u")
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		lab.Eventually(t, soon, "the cgroup to be empty", func() bool { return os.Remove(group) == nil })
	})
	m := process(t, check.ProcessConfig{Unit: unit})
	says(t, m, hooks.Unfit, "no process of "+unit)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	says(t, m, hooks.Healthy, unit+" runs")
	says(t, process(t, check.ProcessConfig{Unit: unit, Name: "other"}), hooks.Unfit, "no process of")
}

func TestMonitorsKeepTheirContract(t *testing.T) {
	_, pidfile := program(t, ownName(t)+"-c")
	page := serve(t, nil)
	for kind, open := range map[string]func() (hooks.Monitor, error){
		"interface": func() (hooks.Monitor, error) { return check.NewInterface(check.InterfaceConfig{Interface: "lo"}) },
		"route":     func() (hooks.Monitor, error) { return check.NewRoute(check.RouteConfig{Destination: "127.0.0.1"}) },
		"process":   func() (hooks.Monitor, error) { return check.NewProcess(check.ProcessConfig{Pidfile: pidfile}) },
		"search":    func() (hooks.Monitor, error) { return check.NewProcess(check.ProcessConfig{Name: ownName(t) + "-c"}) },
		"file": func() (hooks.Monitor, error) {
			return check.NewFile(check.FileConfig{Path: pidfile, Want: check.Number})
		},
		"tcp": func() (hooks.Monitor, error) {
			return check.NewTCP(check.TCPConfig{Address: page.Listener.Addr().String()})
		},
		"http": func() (hooks.Monitor, error) {
			return check.NewHTTP(check.HTTPConfig{URL: page.URL + "/ok", Body: "well"})
		},
	} {
		t.Run(kind, func(t *testing.T) {
			hookstest.Monitors(t, func() hooks.Monitor {
				m, err := open()
				return opened(t, m, err)
			})
		})
	}
}
