package daemon

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

func snapshotCommand(stdout, stderr io.Writer) *cobra.Command {
	c := &cobra.Command{Use: "snapshot", Short: "Look at snapshots of SQLite databases, offline", Args: cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: say what to do with the snapshot: carpd snapshot verify FILE", errUsage)
		}}
	c.AddCommand(verifyCommand(stdout, stderr))
	return c
}

// verify holds the flags of carpd snapshot verify.
type verify struct {
	json    bool
	kind    string
	sha256  string
	empty   []string
	rows    []string
	maxSize int64
	timeout time.Duration

	floors map[string]int64
}

func verifyCommand(stdout, stderr io.Writer) *cobra.Command {
	var v verify
	c := &cobra.Command{Use: "verify FILE...", Short: "Say of each file whether it is sound; touches nothing", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, files []string) error {
			if err := v.validate(files); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return v.run(ctx, files, stdout, stderr)
		}}
	c.Flags().BoolVar(&v.json, "json", false, "print one object a file")
	c.Flags().StringVar(&v.sha256, "sha256", "", "`digest` that the one file must have")
	v.flags(c)
	return c
}

// flags are those that say what a sound snapshot is.
func (v *verify) flags(c *cobra.Command) {
	c.Flags().StringVar(&v.kind, "kind", "auto", "whose database: auto, sqlite (anybody's) or proxysql")
	c.Flags().StringArrayVar(&v.empty, "allow-empty", nil, "`table` that may be empty; may be given more than once")
	c.Flags().StringArrayVar(&v.rows, "rows", nil, "`TABLE=N`: the table must have N rows at least; may be given more than once")
	c.Flags().Int64Var(&v.maxSize, "max-size", sqlite.MaxSize, "refuse larger files, in `bytes`")
	c.Flags().DurationVar(&v.timeout, "timeout", 5*time.Minute, "longest `time` for one file")
}

func (v *verify) validate(files []string) error {
	if err := v.limits(); err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%w: name the files to verify", errUsage)
	}
	v.sha256 = strings.ToLower(v.sha256)
	if sum, err := hex.DecodeString(v.sha256); v.sha256 != "" && (err != nil || len(sum) != 32 || len(files) != 1) {
		return fmt.Errorf("%w: --sha256 wants the 64 hexadecimal digits of one file", errUsage)
	}
	return nil
}

// limits reads what flags gave.
func (v *verify) limits() error {
	switch v.kind {
	case "auto", "sqlite", proxysql.Kind:
	default:
		return fmt.Errorf("%w: --kind %q: want auto, sqlite or %s", errUsage, v.kind, proxysql.Kind)
	}
	if v.maxSize <= 0 || v.timeout <= 0 {
		return fmt.Errorf("%w: --max-size and --timeout must be above 0", errUsage)
	}
	v.floors = make(map[string]int64)
	for _, r := range v.rows {
		i := strings.LastIndexByte(r, '=')
		n, err := strconv.ParseInt(r[i+1:], 10, 64)
		if i < 1 || err != nil || n < 0 {
			return fmt.Errorf("%w: --rows %q: want TABLE=N", errUsage, r)
		}
		v.floors[r[:i]] = n
	}
	return nil
}

// rules chooses the rules for one database.
func (v *verify) rules(c replicator.Content) replicator.Rules {
	r := proxysql.Rules()
	if v.kind == "sqlite" || v.kind == "auto" && !r.Is(c) {
		r = replicator.Rules{}
	}
	r.MayBeEmpty, r.Floors = v.empty, v.floors
	return r
}

func (v *verify) run(ctx context.Context, files []string, stdout, stderr io.Writer) error {
	refused := 0
	for _, name := range files {
		limited, cancel := context.WithTimeoutCause(ctx, v.timeout, fmt.Errorf("%v are over", v.timeout))
		r := sqlite.Verify(limited, name, sqlite.Options{Rules: v.rules, SHA256: v.sha256, MaxSize: v.maxSize})
		cancel()
		if !r.Sound() {
			refused++
		}
		if err := v.print(name, r, stdout, stderr); err != nil {
			return err
		}
	}
	if refused > 0 {
		return fmt.Errorf("snapshot verify: %d of %d files are refused", refused, len(files))
	}
	return nil
}

// verified is what --json prints of a file.
type verified struct {
	File     string             `json:"file"`
	Verdict  string             `json:"verdict"`          // sound or refused
	Reason   replicator.Reason  `json:"reason,omitempty"` // the first
	Faults   []replicator.Fault `json:"faults,omitempty"`
	Notes    []string           `json:"notes,omitempty"`
	Kind     string             `json:"kind"`
	Size     int64              `json:"size"`
	PageSize int64              `json:"page_size"`
	Pages    int64              `json:"pages"`
	SHA256   string             `json:"sha256,omitempty"`
	Rows     map[string]int64   `json:"rows,omitempty"`
}

func (v *verify) print(name string, r sqlite.Report, stdout, stderr io.Writer) error {
	if !v.json {
		for _, n := range r.Notes {
			fmt.Fprintf(stderr, "%s: note: %s\n", printable(name), printable(n))
		}
		_, err := fmt.Fprintf(stdout, "%s: %s\n", printable(name), printable(r.Verdict.String()))
		return err
	}
	word := "sound"
	if !r.Sound() {
		word = "refused"
	}
	line, err := json.Marshal(verified{name, word, r.Reason(), r.Faults, r.Notes, r.Kind, r.Size, r.Header.PageSize, r.Header.Pages, r.SHA256, r.Rows})
	if err == nil {
		_, err = fmt.Fprintf(stdout, "%s\n", line)
	}
	return err
}

// printable quotes what would not stay on one line: names of files and tables are
// anybody's.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
