package sqlite

import (
	"encoding/binary"
	"fmt"

	"github.com/carpd/carpd/replicator"
)

// HeaderSize is the size of the header at the beginning of a database, in bytes.
const HeaderSize = 100

// magic are the first bytes of every database.
const magic = "SQLite format 3\x00"

// Header are the fields of the first page that verification and change detection use.
type Header struct {
	PageSize      int64  // bytes, a power of two from 512 to 65536
	Pages         int64  // as the header counts them
	ChangeCounter uint32 // grows with each transaction, in rollback-journal mode
	SchemaCookie  uint32 // grows with each change of the schema
	WAL           bool   // write-ahead log mode
	Library       uint32 // SQLite that wrote last, 3043002 for 3.43.2
}

// ParseHeader reads the first HeaderSize bytes of a file of size bytes and finds all
// that is wrong with them. A b that is shorter belongs to a file that is shorter.
func ParseHeader(b []byte, size int64) (Header, replicator.Verdict) {
	var h Header
	switch {
	case size == 0:
		return h, replicator.Refused(replicator.Empty, "0 bytes: SQLite takes it for a database without tables, and a program for its first start")
	case len(b) < len(magic) || string(b[:len(magic)]) != magic:
		return h, replicator.Refused(replicator.NotADatabase, "the first bytes are not those of an SQLite database")
	case len(b) < HeaderSize:
		return h, replicator.Refused(replicator.BadSize, fmt.Sprintf("%d bytes, shorter than a header of %d: it was cut off", size, HeaderSize))
	}
	h = Header{
		PageSize:      int64(binary.BigEndian.Uint16(b[16:])),
		Pages:         int64(binary.BigEndian.Uint32(b[28:])),
		ChangeCounter: binary.BigEndian.Uint32(b[24:]),
		SchemaCookie:  binary.BigEndian.Uint32(b[40:]),
		WAL:           b[18] == 2 || b[19] == 2,
		Library:       binary.BigEndian.Uint32(b[96:]),
	}
	if h.PageSize == 1 {
		h.PageSize = 65536
	}
	var v replicator.Verdict
	h.judgeFormat(&v, b)
	h.judgeSize(&v, b, size)
	return h, v
}

// judgeFormat looks at what says which SQLite may read the file, and how.
func (h Header) judgeFormat(v *replicator.Verdict, b []byte) {
	if b[18] > 2 || b[19] > 2 {
		v.Refuse(replicator.FileFormat, fmt.Sprintf("versions %d (write) and %d (read) of the file format: made by a newer SQLite, or damaged", b[18], b[19]))
	}
	if b[18] == 0 || b[19] == 0 {
		v.Refuse(replicator.BadHeader, "version 0 of the file format")
	}
	if h.WAL {
		v.Refuse(replicator.WALMode, "in write-ahead log mode, where the newest changes may be in a -wal file; a backup or VACUUM INTO followed by PRAGMA journal_mode=DELETE makes a whole file")
	}
	if b[21] != 64 || b[22] != 32 || b[23] != 32 {
		v.Refuse(replicator.BadHeader, "payload fractions that no SQLite writes")
	}
	if f := binary.BigEndian.Uint32(b[44:]); f > 4 {
		v.Refuse(replicator.BadHeader, fmt.Sprintf("schema format %d, known are 1 to 4", f))
	}
	if e := binary.BigEndian.Uint32(b[56:]); e > 3 {
		v.Refuse(replicator.BadHeader, fmt.Sprintf("text encoding %d, known are 1 to 3", e))
	}
}

// judgeSize compares the size with what the header says.
func (h Header) judgeSize(v *replicator.Verdict, b []byte, size int64) {
	if h.PageSize < 512 || h.PageSize&(h.PageSize-1) != 0 {
		v.Refuse(replicator.BadHeader, fmt.Sprintf("page size %d, want a power of two from 512 to 65536", h.PageSize))
		return
	}
	if h.PageSize-int64(b[20]) < 480 {
		v.Refuse(replicator.BadHeader, fmt.Sprintf("%d of %d bytes of each page are reserved", b[20], h.PageSize))
	}
	if h.ChangeCounter != binary.BigEndian.Uint32(b[92:]) {
		v.Refuse(replicator.BadHeader, "its page count is not valid: written last by an SQLite before 3.7.0, or damaged; VACUUM INTO makes a file that has one")
		return
	}
	if want := h.Pages * h.PageSize; want != size {
		v.Refuse(replicator.BadSize, fmt.Sprintf("%d bytes, and %d pages of %d are %d: it was cut off, or copied without its journal", size, h.Pages, h.PageSize, want))
	}
}
