package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/carpd/carpd/test/lab"
)

// Ours is carpd at path, speaking VRRP version 3.
func Ours(path string) Speaker {
	return Speaker{
		Name: "ours", Version: versionOf(path, "version"), Silence: vrrpSilence, Farewell: vrrpSkew, Relieved: true,
		Start: func(ctx context.Context, _ lab.TB, m Member) (Running, error) {
			return startCarpd(ctx, path, m, func(id int) string {
				return fmt.Sprintf("vrid: %d\n    protocol: vrrp3\n    priority: %d\n    interval: %v", id, m.Priority, m.Interval)
			})
		},
	}
}

// OursCARP is carpd at path, speaking CARP: advskew 0 and 100.
func OursCARP(path string) Speaker {
	return Speaker{
		Name: "ours-carp", Version: versionOf(path, "version"), Silence: carpSilence, Refuses: secondsOnly, Farewell: carpFarewell, Relieved: true,
		Start: func(ctx context.Context, _ lab.TB, m Member) (Running, error) {
			return startCarpd(ctx, path, m, func(id int) string {
				return fmt.Sprintf("vhid: %d\n    passphrase: bench\n    advbase: %d\n    advskew: %d", id, int(m.Interval.Seconds()), m.Skew())
			})
		},
	}
}

// carpdConfig is the file of a member; election is what says who is to be master.
func carpdConfig(m Member, socket string, election func(id int) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\nstate_dir: %s\ncontrol: %s\ninstances:\n", m.Host.Name, filepath.Join(m.Dir, "state"), socket)
	for id := 1; id <= m.Instances; id++ {
		fmt.Fprintf(&b, "  - %s\n    interface: eth0\n    preempt: true\n    addresses: [%v]\n", election(id), VIP(uint8(id)))
		if id == 1 && len(m.Excluded) > 0 {
			fmt.Fprintf(&b, "    addresses_excluded:\n")
			for _, p := range m.Excluded {
				fmt.Fprintf(&b, "      - %v\n", p)
			}
		}
	}
	return b.String()
}

func startCarpd(ctx context.Context, path string, m Member, election func(id int) string) (Running, error) {
	file, socket := filepath.Join(m.Dir, "carpd.yaml"), filepath.Join(m.Dir, "sock")
	if err := os.WriteFile(file, []byte(carpdConfig(m, socket, election)), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	p := procs{m.Host.Start(exec.Command(path, "run", "--log-format", "json", "--config", file))}
	return p, await(ctx, p, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}
