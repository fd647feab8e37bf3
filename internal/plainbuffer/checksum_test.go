package plainbuffer

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// referenceCRC is the checksum by its definition, a bit at a time.
func referenceCRC(data []byte) byte {
	var crc byte
	for _, b := range data {
		crc ^= b
		for range 8 {
			carry := crc >> 7
			crc = crc<<1 ^ carry*0x07
		}
	}
	return crc
}

func TestChecksum(t *testing.T) {
	t.Run("check_value_of_crc8_with_polynomial_07", func(t *testing.T) {
		if got := crc(0).bytes([]byte("123456789")).sum(); got != 0xF4 {
			t.Errorf("got 0x%02x, want 0xF4", got)
		}
	})

	// A CRC is linear, so messages with a single one bit, at every place, prove
	// all messages of that length.
	t.Run("equals_the_definition_for_a_bit_at_every_place", func(t *testing.T) {
		for n := range 40 {
			for bit := range 8 * n {
				data := make([]byte, n)
				data[bit/8] = 1 << (bit % 8)
				if got, want := crc(0).bytes(data).sum(), referenceCRC(data); got != want {
					t.Fatalf("%d bytes, bit %d: got 0x%02x, want 0x%02x", n, bit, got, want)
				}
			}
		}
	})

	t.Run("stays_below_2_to_the_40_and_right_for_any_split", func(t *testing.T) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 2000 {
			data := make([]byte, rng.IntN(100))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			var c crc
			for rest := data; len(rest) > 0; {
				n := 1
				switch rng.IntN(3) {
				case 0:
					c = c.byte(rest[0])
				case 1:
					n = rng.IntN(len(rest) + 1)
					c = c.bytes(rest[:n])
				default:
					if n = 8; len(rest) < n {
						n = 0
						break
					}
					c = c.uint64(binary.LittleEndian.Uint64(rest))
				}
				rest = rest[n:]
				if c >= 1<<40 {
					t.Fatalf("crc 0x%x is not below 2^40", uint64(c))
				}
			}
			if got, want := c.sum(), referenceCRC(data); got != want {
				t.Fatalf("%x: got 0x%02x, want 0x%02x", data, got, want)
			}
		}
	})
}
