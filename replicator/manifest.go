package replicator

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxManifest is the size of the longest manifest that is read, in bytes.
const MaxManifest = 1 << 20

// manifestFormat is written into manifests; readers refuse others.
const manifestFormat = 1

// Manifest says what a snapshot is. It is published after the snapshot: who sees a
// manifest sees its data.
type Manifest struct {
	Version  Version          `json:"version"`
	Source   string           `json:"source"` // name of the node that took it
	Time     time.Time        `json:"time"`   // when, by that node's clock: for people and for Keep.Age, never to order by
	Kind     string           `json:"kind"`   // of the rules that it was judged by
	Size     int64            `json:"size"`   // bytes
	SHA256   string           `json:"sha256"` // hex, lower case
	PageSize int64            `json:"page_size"`
	Pages    int64            `json:"pages"`
	Rows     map[string]int64 `json:"rows"` // by table; Rules.Before of the next snapshot
}

// Validate finds what no snapshot's manifest says.
func (m Manifest) Validate() error {
	sum, err := hex.DecodeString(m.SHA256)
	switch {
	case !m.Version.possible():
		return fmt.Errorf("replicator: manifest %v: node id and sequence are 1 at least, epoch and sequence below 2^62", m.Version)
	case err != nil || len(sum) != 32 || hex.EncodeToString(sum) != m.SHA256:
		return fmt.Errorf("replicator: manifest %v: sha256 %q: want 64 hexadecimal digits", m.Version, m.SHA256)
	case m.Size <= 0 || m.PageSize <= 0 || m.Size/m.PageSize != m.Pages || m.Size%m.PageSize != 0:
		return fmt.Errorf("replicator: manifest %v: %d bytes are not %d pages of %d", m.Version, m.Size, m.Pages, m.PageSize)
	}
	return nil
}

// wireManifest is what is written.
type wireManifest struct {
	Format int `json:"format"`
	Manifest
}

// Encode returns the manifest as JSON, with a line end.
func (m Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(wireManifest{manifestFormat, m}, "", "  ")
	if err == nil && len(b) >= MaxManifest {
		err = fmt.Errorf("replicator: manifest %v: %d bytes, at most %d", m.Version, len(b), MaxManifest)
	}
	return append(b, '\n'), err
}

// DecodeManifest reads what Encode wrote. Fields that it does not know are left out.
func DecodeManifest(b []byte) (Manifest, error) {
	var w wireManifest
	if len(b) > MaxManifest {
		return Manifest{}, errors.New("replicator: read manifest: too long")
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return Manifest{}, fmt.Errorf("replicator: read manifest: %w", err)
	}
	if w.Format != manifestFormat {
		return Manifest{}, fmt.Errorf("replicator: read manifest: format %d, known is %d", w.Format, manifestFormat)
	}
	return w.Manifest, w.Validate()
}
