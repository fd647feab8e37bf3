package laws

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// handled is a line of the consumers' common log: one record that a handler has
// finished, written before its ack.
type handled struct {
	at       time.Time
	process  int
	fenced   bool // the channel was lost while the handler ran
	channel  string
	sequence ots.Sequence
	uuid     string
	key      string
	version  int
	attempt  int
}

func (c consumer) handledOf(msg *message.Message) (handled, error) {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return handled{}, fmt.Errorf("message %s has no record", msg.UUID)
	}
	version, _ := r.Column("v")
	return handled{
		at: time.Now(), process: c.number, fenced: msg.Context().Err() != nil, channel: r.Channel, sequence: r.Sequence,
		uuid: msg.UUID, key: r.PrimaryKey[0].Value.String(), version: int(version.Int64()), attempt: r.Attempt,
	}, nil
}

// changed returns when the record was written to the table.
func (h handled) changed() time.Time { return time.UnixMicro(h.sequence.Timestamp) }

// lineStart begins each line and occurs nowhere else in it.
const lineStart = "@"

const lineFormat = lineStart + "%d %d %t %s %d %d %d %s %s %d %d\n"

func (h handled) line() string {
	s := h.sequence
	return fmt.Sprintf(lineFormat, h.at.UnixMicro(), h.process, h.fenced, h.channel, s.Epoch, s.Timestamp, s.RowIndex, h.uuid, h.key, h.version, h.attempt)
}

// parseHandled parses a line. A process that is killed while it writes may leave a part of
// a line, which the next line follows: the part is dropped. Its record was not acked yet.
func parseHandled(line string) (h handled, err error) {
	if start := strings.LastIndex(line, lineStart); start > 0 {
		line = line[start:]
	}
	var at int64
	s := &h.sequence
	_, err = fmt.Sscanf(line, lineFormat, &at, &h.process, &h.fenced, &h.channel, &s.Epoch, &s.Timestamp, &s.RowIndex, &h.uuid, &h.key, &h.version, &h.attempt)
	h.at = time.UnixMicro(at)
	return h, err
}

// commonLog reads the consumers' log while they write it. Each line is written
// with a single write.
type commonLog struct {
	*testing.T
	name  string
	file  *os.File
	lines int    // number of lines read
	rest  []byte // of a line that was read partly
}

func newLog(t *testing.T) *commonLog {
	t.Helper()
	l := &commonLog{T: t, name: t.TempDir() + "/handled.log"}
	var err error
	if l.file, err = os.OpenFile(l.name, os.O_CREATE|os.O_RDONLY, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.file.Close() })
	return l
}

// next calls f for each line since the last call.
func (l *commonLog) next(f func(handled)) {
	l.Helper()
	buf := make([]byte, 1<<20)
	for {
		n, err := l.file.Read(buf)
		if n == 0 {
			if err != io.EOF {
				l.Fatal(err)
			}
			return
		}
		l.rest = append(l.rest, buf[:n]...)
		whole := l.rest[:bytes.LastIndexByte(l.rest, '\n')+1]
		for line := range bytes.Lines(whole) {
			l.lines++
			h, err := parseHandled(string(line))
			if err != nil {
				l.Fatalf("log line %d %q: %v", l.lines, line, err)
			}
			f(h)
		}
		l.rest = append(l.rest[:0], l.rest[len(whole):]...)
	}
}

func TestLog_part_of_a_line_that_a_killed_process_left_is_dropped(t *testing.T) {
	want := handled{at: time.UnixMicro(5), process: 3, channel: "c", uuid: "u", key: "k", version: 2, attempt: 1}
	for _, cut := range []int{1, 2, 10, len(want.line()) - 1} {
		got, err := parseHandled(want.line()[:cut] + want.line())
		if err != nil || got != want {
			t.Errorf("cut after %d bytes: %+v, %v", cut, got, err)
		}
	}
}
