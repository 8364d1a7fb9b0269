package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/carpd/carpd/replicator"
)

// Names are those of a snapshot's files, relative to the directory. Who cannot take
// the lock, since it writes from another machine, publishes with them in this order:
//
//  1. UploadedData, synced;
//  2. UploadedManifest, synced;
//  3. UploadedData is renamed to Data;
//  4. UploadedManifest is renamed to Manifest.
//
// What is uploaded stays until a snapshot that is as new is there: a Store that clears
// away the rests of others leaves data alone while its manifest is about to come.
type Names struct {
	Data, Manifest                 string
	UploadedData, UploadedManifest string
	Away, Reason                   string // data and reason in quarantine
}

const uploadPrefix = ".up-"

// NamesOf returns the names of the files of a snapshot.
func NamesOf(v replicator.Version) Names {
	data, manifest := v.String()+dataSuffix, v.String()+manifestSuffix
	return Names{Data: data, Manifest: manifest, UploadedData: uploadPrefix + data, UploadedManifest: uploadPrefix + manifest,
		Away: "quarantine/" + data, Reason: "quarantine/" + v.String() + reasonSuffix}
}

// OfManifest returns the version that a file is the manifest of.
func OfManifest(name string) (v replicator.Version, ok bool) {
	text, ok := strings.CutSuffix(name, manifestSuffix)
	if !ok {
		return v, false
	}
	v, err := replicator.ParseVersion(text)
	return v, err == nil
}

// OfUpload returns the version that a file is uploaded for.
func OfUpload(name string) (v replicator.Version, ok bool) {
	text, ok := strings.CutPrefix(name, uploadPrefix)
	if !ok {
		return v, false
	}
	v, err := replicator.ParseVersion(strings.TrimSuffix(strings.TrimSuffix(text, dataSuffix), manifestSuffix))
	return v, err == nil
}

// isUploaded reports whether the manifest of a snapshot is about to be published from
// afar. A look that failed says yes.
func (s *Store) isUploaded(v replicator.Version) bool {
	_, err := os.Lstat(filepath.Join(s.path, NamesOf(v).UploadedManifest))
	return !errors.Is(err, fs.ErrNotExist)
}

// clearUploads removes what can never be published any more: what is not newer than
// what is there.
func (s *Store) clearUploads(entries []os.DirEntry) error {
	published, err := s.versions(s.path, manifestSuffix)
	if err != nil || len(published) == 0 {
		return err
	}
	for _, e := range entries {
		if v, ok := OfUpload(e.Name()); ok && v.Compare(published[0]) <= 0 {
			err = errors.Join(err, removeIfThere(filepath.Join(s.path, e.Name())))
		}
	}
	return err
}
