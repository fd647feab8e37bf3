package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// load describes what a server serves.
type load struct {
	Channels int
	Base     bool          // base data instead of a stream
	Page     int           // records per page
	Latency  time.Duration // of each read
	Updates  bool          // the changes are updates of all columns, not puts
	Silent   bool          // do not say whether there are more records (may_more_record)
	InFlight int           // messages that the consumer "held" holds
	Rate     int           // records per second and channel, written while the consumer runs; 0: more than any consumer can read
}

// server is a tunnel service with one endless tunnel. It serves pages that were
// built before, so that it costs as little as possible and every consumer gets
// the same bytes.
type server struct {
	load     load
	pages    *pages
	http     *http.Server
	listener net.Listener
	serving  sync.WaitGroup
	started  time.Time

	row []byte // an answer of BatchGetRow about one row

	reads       atomic.Int64
	lookups     atomic.Int64
	connections atomic.Int64 // number of connections opened so far

	mu     sync.Mutex
	stored map[string]checkpoint // by channel
}

type checkpoint struct {
	token    string
	sequence int64
}

// serve starts a server. p must be newPages(load).
func serve(l load, p *pages) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{load: l, pages: p, listener: listener, started: time.Now(), stored: make(map[string]checkpoint), row: lookedUpRow()}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}}
	s.serving.Go(func() { // ends with close
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println("benchmarks: serving:", err)
		}
	})
	return s, nil
}

func (s *server) endpoint() string { return "http://" + s.listener.Addr().String() }

func (s *server) close() error {
	err := s.http.Close()
	s.serving.Wait()
	return err
}

// ServeHTTP answers the tunnel operations that consumers use.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = s.answer(w, path.Base(r.URL.Path), r.Context(), body)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		send(w, &protocol.Error{Code: proto.String("OTSParameterInvalid"), Message: proto.String(err.Error())})
	}
}

func (s *server) answer(w http.ResponseWriter, op string, ctx context.Context, body []byte) error {
	switch op {
	case "describe":
		kind := protocol.TunnelType_Stream
		if s.load.Base {
			kind = protocol.TunnelType_BaseData
		}
		return send(w, &protocol.DescribeTunnelResponse{Tunnel: &protocol.TunnelInfo{
			TunnelId: proto.String("bench"), TunnelType: proto.String(kind.String()), TableName: proto.String("bench"), InstanceName: proto.String("bench"),
			StreamId: proto.String("stream"), Stage: proto.String("ProcessStream"), Expired: proto.Bool(false), TunnelName: proto.String("bench"), CreateTime: proto.Int64(0),
		}})
	case "connect":
		return send(w, &protocol.ConnectResponse{ClientId: proto.String("client")})
	case "heartbeat":
		resp := new(protocol.HeartbeatResponse)
		for i := range s.load.Channels {
			resp.Channels = append(resp.Channels, &protocol.Channel{
				ChannelId: proto.String("channel-" + strconv.Itoa(i)), Version: proto.Int64(1), Status: protocol.ChannelStatus_OPEN.Enum(),
			})
		}
		return send(w, resp)
	case "getcheckpoint":
		channel, err := stringField(body, 3)
		if err != nil {
			return err
		}
		c := s.checkpointOf(channel)
		return send(w, &protocol.GetCheckpointResponse{Checkpoint: &c.token, SequenceNumber: &c.sequence})
	case "checkpoint":
		return s.store(body)
	case "readrecords":
		return s.read(w, ctx, body)
	case "BatchGetRow":
		return s.lookup(w, ctx, body)
	case "shutdown":
		return nil
	}
	return fmt.Errorf("unsupported operation %q", op)
}

func (s *server) checkpointOf(channel string) checkpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.stored[channel]
	if !ok {
		c.token = token(0, s.load.Base)
	}
	return c
}

func (s *server) store(body []byte) error {
	req := new(protocol.CheckpointRequest)
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(req)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.stored[req.GetChannelId()].sequence; req.GetSequenceNumber() != have+1 {
		return fmt.Errorf("sequence number %d after %d", req.GetSequenceNumber(), have)
	}
	s.stored[req.GetChannelId()] = checkpoint{req.GetCheckpoint(), req.GetSequenceNumber()}
	return nil
}

// read answers a ReadRecords: for an endless channel with the next page,
// otherwise with what was written since the last read.
func (s *server) read(w http.ResponseWriter, ctx context.Context, body []byte) error {
	text, err := stringField(body, 4)
	if err != nil {
		return err
	}
	at, err := position(text)
	if err != nil {
		return err
	}
	s.reads.Add(1)
	if s.load.Latency > 0 {
		select {
		case <-time.After(s.load.Latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var records []byte
	next, more := at+1, true
	if s.load.Rate > 0 {
		every := time.Second / time.Duration(s.load.Rate)
		next, more = int(time.Since(s.started)/every), false
		for id := at; id < next; id++ {
			records = appendRecord(records, id, s.started.Add(time.Duration(id+1)*every), false, 1)
		}
	} else if s.load.Page > 0 {
		channel, err := channelNumber(body)
		if err != nil {
			return err
		}
		records = s.pages.of(channel, s.load.Channels, at)
	} else { // nothing is ever written
		next, more = at, false
	}
	end := appendEnd(nil, token(next, s.load.Base), more, !s.load.Silent)
	w.Header().Set("Content-Length", strconv.Itoa(len(records)+len(end)))
	if _, err := w.Write(records); err != nil {
		return nil // the client has disconnected
	}
	w.Write(end)
	return nil
}

// channelNumber returns the number of the channel that a request is for.
func channelNumber(body []byte) (int, error) {
	id, err := stringField(body, 3)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimPrefix(id, "channel-"))
}

// lookup answers a BatchGetRow: each row is there, with the columns of a record.
func (s *server) lookup(w http.ResponseWriter, ctx context.Context, body []byte) error {
	table, err := stringField(body, 1)
	if err != nil {
		return err
	}
	s.lookups.Add(1)
	if s.load.Latency > 0 {
		select {
		case <-time.After(s.load.Latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	answer := protowire.AppendTag(nil, 1, protowire.BytesType) // table_name
	answer = protowire.AppendString(answer, "bench")
	for b := []byte(table); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		if num == 2 { // primary_key
			answer = protowire.AppendTag(answer, 2, protowire.BytesType) // rows
			answer = protowire.AppendBytes(answer, s.row)
		}
		b = b[n+size:]
	}
	out := protowire.AppendTag(nil, 1, protowire.BytesType)
	out = protowire.AppendBytes(out, answer)
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	w.Write(out) // a client that has disconnected needs no answer
	return nil
}

func send(w http.ResponseWriter, m protoadapt.MessageV1) error {
	b, err := proto.Marshal(protoadapt.MessageV2Of(m))
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
