package proxysqlstub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// certificates makes the three files of TLS where none of them is there; false where
// some are: ProxySQL then ends, with success.
func (s *server) certificates() bool {
	names := []string{"proxysql-ca.pem", "proxysql-cert.pem", "proxysql-key.pem"}
	have := 0
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(s.data, name)); err == nil {
			have++
		}
	}
	switch have {
	case len(names):
		return true
	case 0:
	default:
		s.log("[ERROR] Unable to find all of %v", names)
		return false
	}
	if err := s.makeCertificates(names); err != nil {
		s.log("[ERROR] SSL: %v", err)
		return false
	}
	return true
}

// makeCertificates writes a certificate that signs itself, as CA and as server, and its
// key.
func (s *server) makeCertificates(names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ProxySQL_Auto_Generated"}, NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(s.data, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o666)
	}
	return errors.Join(write(names[0], "CERTIFICATE", cert), write(names[1], "CERTIFICATE", cert), write(names[2], "PRIVATE KEY", private))
}
