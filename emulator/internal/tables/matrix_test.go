package tables

import "testing"

func TestMatrix(t *testing.T) {
	t.Run("has the checksum of PlainBuffers", func(t *testing.T) {
		// The check value of CRC-8/SMBUS in the catalogue of parametrised CRC algorithms.
		if got := crc8([]byte("123456789")); got != 0xF4 {
			t.Errorf("got %#x", got)
		}
	})
	t.Run("says whether keys are whole", func(t *testing.T) {
		const options = 5*4 + 2 + 1 // after five numbers and a name of one byte
		for _, whole := range []bool{false, true} {
			b := (&matrix{columns: []string{"a"}, keys: 1, whole: whole}).encode()
			if b[options] != matrixWholeKeys || b[options+1] == 1 != whole {
				t.Errorf("whole keys %t: options begin with % x", whole, b[options:options+2])
			}
		}
	})
	t.Run("ends with its checksum", func(t *testing.T) {
		b := (&matrix{columns: []string{"a"}, keys: 1}).encode()
		if n := len(b) - 1; b[n] != crc8(b[:n]) || b[n-1] != matrixChecksum {
			t.Errorf("the block ends with % x", b[n-1:])
		}
	})
}
