package subscriber

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/watermill-ots/watermill-ots/ots"
)

// uuids builds the UUIDs of one channel's messages.
//
// A UUID is a pure function of tunnel, channel, sequence, record type and
// primary key (law L2): the first 128 bits of a SHA-256 over them, in the form of a
// version 8 UUID (RFC 9562: custom). The same record has the same UUID in every
// process and on every delivery.
// Not for concurrent use.
type uuids struct {
	seed [sha256.Size]byte
	text []byte // of the next UUIDs, which share it
}

const (
	uuidSize = 36
	// uuidsInOne is how many UUIDs share a piece of memory: what keeps one keeps them all.
	uuidsInOne = 32
)

func newUUIDs(tunnelID, channelID string) *uuids {
	h := sha256.New()
	for _, s := range []string{tunnelID, channelID} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	u := new(uuids)
	h.Sum(u.seed[:0])
	return u
}

// of returns the UUID of a record with the given key bytes.
func (u *uuids) of(typ ots.RecordType, seq ots.Sequence, key string) string {
	var stack [192]byte
	b := append(stack[:0], u.seed[:]...)
	b = append(b, byte(typ))
	b = binary.LittleEndian.AppendUint32(b, uint32(seq.Epoch))
	b = binary.LittleEndian.AppendUint64(b, uint64(seq.Timestamp))
	b = binary.LittleEndian.AppendUint32(b, uint32(seq.RowIndex))
	b = append(b, key...)
	sum := sha256.Sum256(b)
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	if len(u.text) < uuidSize {
		u.text = make([]byte, uuidsInOne*uuidSize)
	}
	text := u.text[:uuidSize]
	u.text = u.text[uuidSize:]
	hex.Encode(text[0:8], id[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], id[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], id[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], id[8:10])
	text[23] = '-'
	hex.Encode(text[24:36], id[10:16])
	return textOf(text)
}
