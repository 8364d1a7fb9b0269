package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks/secret"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/receive"
	"github.com/carpd/carpd/replicator/sftp"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/replicator/ssh"
)

// database is a replicator.Source that holds something open.
type database interface {
	replicator.Source
	io.Closer
}

// openSource makes the source of an entry. It reads the password, and connects to nothing.
func openSource(p config.Replication) (database, error) {
	if p.Source.Kind == config.SourceProxySQL {
		c := proxysql.SourceConfig{Database: p.Source.Database, Rules: rulesOf(p, nil)(replicator.Content{}), MaxSize: p.MaxSize}
		if a := p.Source.Admin; a != nil {
			password, err := secret.Read(a.PasswordFile)
			if err != nil {
				return nil, err
			}
			c.Admin, c.Exchange = &proxysql.Admin{Address: a.Address, User: a.User, Password: password}, a.Exchange
		}
		return proxysql.NewSource(c)
	}
	return sqlite.NewSource(sqlite.SourceConfig{Path: p.Source.Database, Rules: rulesOf(p, nil), MaxSize: p.MaxSize})
}

// rulesOf are what snapshots of an entry are judged by. before is Rules.Before.
func rulesOf(p config.Replication, before map[string]int64) func(replicator.Content) replicator.Rules {
	return func(replicator.Content) replicator.Rules {
		var r replicator.Rules
		if p.Source.Kind == config.SourceProxySQL {
			r = proxysql.Rules()
		}
		r.Floors, r.MayBeEmpty, r.Before = p.Rows, p.MayBeEmpty, before
		return r
	}
}

// verifySnapshot judges a file.
func verifySnapshot(ctx context.Context, p config.Replication, path, sha256 string, before map[string]int64) replicator.Verdict {
	return sqlite.Verify(ctx, path, sqlite.Options{Rules: rulesOf(p, before), SHA256: sha256, MaxSize: p.MaxSize}).Verdict
}

func keepOf(p config.Replication) replicator.Keep {
	return replicator.Keep{Count: p.Keep.Count, Age: p.Keep.Age, Least: p.Keep.Least}
}

// openPeers makes the targets of an entry. None is connected yet.
func openPeers(p config.Replication) ([]replicator.Peer, error) {
	var all []replicator.Peer
	for _, s := range p.Peers {
		t, err := openTarget(p, s)
		if err != nil {
			return nil, fmt.Errorf("peer %s: %w", s.Name, err)
		}
		all = append(all, replicator.Peer{Name: s.Name, Target: t})
	}
	return all, nil
}

// checkPeers finds all peers that cannot be reached as they are written.
func checkPeers(p config.Replication) error {
	var faults []error
	for _, s := range p.Peers {
		if _, err := openTarget(p, s); err != nil {
			faults = append(faults, fmt.Errorf("peer %s: %w", s.Name, err))
			continue
		}
		for _, path := range []string{s.KeyFile, s.KnownHosts} {
			if _, err := os.Stat(path); err != nil {
				faults = append(faults, fmt.Errorf("peer %s: %w", s.Name, err))
			}
		}
	}
	return errors.Join(faults...)
}

func sshOf(p config.Replication, s config.Shipping) ssh.Config {
	return ssh.Config{Address: s.Address, User: s.User, KeyFile: s.KeyFile, KnownHosts: s.KnownHosts, Bandwidth: p.Bandwidth}
}

func openTarget(p config.Replication, s config.Shipping) (replicator.Target, error) {
	if s.Method == config.MethodSFTP {
		return sftp.New(sftp.Config{Config: sshOf(p, s), Dir: s.Path})
	}
	return receive.New(sshOf(p, s))
}
