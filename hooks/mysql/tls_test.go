package mysql_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/mysql"
	"github.com/carpd/carpd/test/mariadb"
)

// authority signs certificates; its own is the file ca.pem.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", nil)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name+".pem") }

// sign makes NAME.pem and NAME-key.pem; without an address it is for an authority.
func (a *authority) sign(name string, ip net.IP) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
	parent, signer := a.cert, a.key
	if ip == nil {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		parent, signer = c, key
	} else {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{ip}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	must(a.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	for file, block := range map[string]*pem.Block{name: {Type: "CERTIFICATE", Bytes: der}, name + "-key": {Type: "PRIVATE KEY", Bytes: secret}} {
		must(a.t, os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600))
	}
	made, err := x509.ParseCertificate(der)
	must(a.t, err)
	return made, key
}

// The servers take no connection without TLS, and one of them may show a certificate of
// somebody else.
func withTLS(t *testing.T, kit *mariadb.Kit) {
	ca, foreign := newAuthority(t), newAuthority(t)
	s := newSiteWith(t, kit, 2, func(i int) []string {
		name := []string{"db1", "db2"}[i]
		ca.sign(name, net.IPv4(192, 0, 2, byte(i+1)))
		return []string{"--ssl-cert=" + ca.path(name), "--ssl-key=" + ca.path(name+"-key"), "--ssl-ca=" + ca.path("ca"), "--require-secure-transport=1"}
	}, func(_ int, c *mysql.Config) { c.TLSCA = ca.path("ca") })
	a, b := s.nodes[0], s.nodes[1]
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
	insert(a, 1, 10)
	must(t, a.demote(t.Context()))
	must(t, b.promote(t.Context(), carp.ReasonBowOut))
	must(t, a.follow(t.Context()))
	insert(b, 100, 10)
	a.CatchUp(b.Server)
	r := a.Replication()
	if r["Master_SSL_Allowed"] != "Yes" || r["Master_SSL_Verify_Server_Cert"] != "Yes" {
		t.Errorf("replication with TLS %s, verified %s", r["Master_SSL_Allowed"], r["Master_SSL_Verify_Server_Cert"])
	}
	wantRole(t, a, hooks.RoleDemoted, hooks.Healthy)
	// A certificate of another authority: the peer lives and cannot be believed.
	db := s.open(0, func(_ int, c *mysql.Config) { c.TLSCA = foreign.path("ca") })
	if err := a.attempt(t, db); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("promoted beside a primary with a foreign certificate: %v", err)
	}
}
