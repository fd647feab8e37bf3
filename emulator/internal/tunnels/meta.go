package tunnels

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

const (
	maxNameBytes = 255

	// startMargin is the least distance of a start offset from the end of the
	// log that is about to be dropped (documented at "Create a tunnel").
	startMargin = 5 * time.Minute
)

// create creates a tunnel and its first channels.
func (s *Service) create(req *protocol.CreateTunnelRequest) (protoadapt.MessageV1, error) {
	r, err := s.newRecord(req.GetTunnel())
	if err != nil {
		return nil, err
	}
	t := s.newTunnel(r)
	t.seen = s.changes.Load()
	info, err := s.src.Stream(t.TableID, t.hasStream())
	if err != nil {
		return nil, sourceError(t.Table, err)
	}
	if err := t.checkOffsets(info.Expiration); err != nil {
		return nil, err
	}
	t.touchSelf()
	if t.hasStream() {
		t.StreamID = info.StreamID
		// This must be before the base ranges: changes after it are in the log,
		// and changes before it are in the rows that the scan will read.
		if err := s.firstShards(t); err != nil {
			return nil, sourceError(t.Table, err)
		}
	}
	if t.hasBase() {
		ranges, err := s.src.BaseRanges(t.TableID)
		if err != nil {
			return nil, sourceError(t.Table, err)
		}
		t.addRanges(ranges)
	}

	s.mu.Lock()
	if old := s.names[name{t.Table, t.Name}]; old != nil {
		s.mu.Unlock()
		return nil, tunnelExists(old)
	}
	s.tunnels[t.ID] = t
	s.names[name{t.Table, t.Name}] = t
	t.mu.Lock()
	s.journal.add(t.takeChanges())
	t.mu.Unlock()
	s.mu.Unlock()
	if err := s.save(); err != nil {
		return nil, err
	}
	// If the table was deleted before its tunnel was added, the deletion did
	// not delete the tunnel.
	if _, err := s.src.Stream(t.TableID, false); err != nil {
		if noTable(err) {
			err = errors.Join(err, s.drop(t))
		}
		return nil, sourceError(t.Table, err)
	}
	s.log.Info("tunnel created", "tunnel_id", t.ID, "table", t.Table, "tunnel", t.Name, "type", t.Type.String())
	return &protocol.CreateTunnelResponse{TunnelId: &t.ID}, nil
}

// newRecord validates a create request without looking at the table.
func (s *Service) newRecord(req *protocol.Tunnel) (tunnelRecord, error) {
	if err := checkName(req.GetTunnelName()); err != nil {
		return tunnelRecord{}, err
	}
	tableID, err := s.src.TableID(req.GetTableName())
	if err != nil {
		return tunnelRecord{}, sourceError(req.GetTableName(), err)
	}
	s.mu.RLock()
	old := s.names[name{req.GetTableName(), req.GetTunnelName()}]
	s.mu.RUnlock()
	if old != nil {
		if old.TableID == tableID {
			return tunnelRecord{}, tunnelExists(old)
		}
		// The old tunnel's table was deleted, but the deletion is not answered
		// yet.
		if err := s.drop(old); err != nil {
			return tunnelRecord{}, err
		}
	}
	config := req.GetStreamTunnelConfig()
	start, end := config.GetStartOffset(), config.GetEndOffset()
	if start > math.MaxInt64 || end > math.MaxInt64 {
		return tunnelRecord{}, wire.Invalid("start offset %d or end offset %d is out of range; they are nanoseconds since 1970", start, end)
	}
	flag := config.GetFlag()
	if req.GetTunnelType() == protocol.TunnelType_BaseData { // it has no stream to limit, yet the Java SDK's tests send a configuration
		start, end, flag = 0, 0, protocol.StartOffsetFlag_LATEST
	}
	return tunnelRecord{
		ID:          newTunnelID(),
		Table:       req.GetTableName(),
		TableID:     tableID,
		Name:        req.GetTunnelName(),
		Type:        req.GetTunnelType(),
		Created:     s.cfg.Now().UnixNano(),
		StartFlag:   flag,
		StartOffset: int64(start),
		EndOffset:   int64(end),
	}, nil
}

func tunnelExists(t *tunnel) error {
	return wire.TunnelErrorf(wire.CodeTunnelExist, t.ID, "table %q has a tunnel %q already", t.Table, t.Name)
}

func checkName(name string) error {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return wire.Invalid("invalid tunnel name %.300q: 1 to %d bytes of UTF-8 without control characters", name, maxNameBytes)
	}
	return nil
}

// newTunnelID returns a random UUID, version 4.
func newTunnelID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// checkOffsets checks the start against the part of the log that the stream
// keeps, and the end against the start.
func (t *tunnel) checkOffsets(expiration time.Duration) error {
	created := time.Unix(0, t.Created)
	oldest := created.Add(startMargin - expiration)
	start := created
	if t.StartOffset != 0 {
		start = time.Unix(0, t.StartOffset)
		if start.Before(oldest) || start.After(created) {
			return wire.Invalid("start offset %d is not between %d and %d, the log that the stream keeps (nanoseconds since 1970)",
				t.StartOffset, oldest.UnixNano(), t.Created)
		}
	} else if t.StartFlag == protocol.StartOffsetFlag_EARLIEST {
		start = oldest
	}
	if t.EndOffset != 0 && !t.end().After(start) {
		return wire.Invalid("end offset %d is not after the start %d (nanoseconds since 1970)", t.EndOffset, start.UnixNano())
	}
	return nil
}

// addRanges creates a base channel for each key range, before the stream
// channels.
func (t *tunnel) addRanges(ranges []KeyRange) {
	streams := t.channels
	t.channels = nil
	for i, r := range ranges {
		t.addChannel(&channel{channelRecord: channelRecord{
			TunnelID: t.ID,
			ID:       fmt.Sprintf("%s%s_%d", baseChannelPrefix, t.ID, i),
			Order:    i,
			Base:     true,
			Start:    r.Start,
			End:      r.End,
			Status:   StatusWait,
			Token:    tokenString(position{key: r.Start}),
		}})
	}
	for _, c := range streams {
		c.Order += len(ranges)
		t.channels = append(t.channels, c)
	}
}

// deleteTunnel deletes a tunnel at once: its clients' next requests fail.
func (s *Service) deleteTunnel(req *protocol.DeleteTunnelRequest) (protoadapt.MessageV1, error) {
	id := req.GetTunnelId()
	if s.cfg.Assume[assume.DeleteIgnoresID] {
		id = ""
	}
	t, err := s.named(req.GetTableName(), req.GetTunnelName(), id)
	if err != nil {
		return nil, err
	}
	return nil, s.drop(t)
}

// list describes a table's tunnels by name, or all tunnels if the request names
// no table.
func (s *Service) list(req *protocol.ListTunnelRequest) (protoadapt.MessageV1, error) {
	table := req.GetTableName()
	if table != "" {
		if _, err := s.src.TableID(table); err != nil {
			return nil, sourceError(table, err)
		}
	}
	resp := &protocol.ListTunnelResponse{}
	for _, t := range s.sorted() {
		if table != "" && t.Table != table {
			continue
		}
		t.mu.Lock()
		if t.gone() == nil {
			resp.Tunnels = append(resp.Tunnels, t.info(s.cfg.Instance))
		}
		t.mu.Unlock()
	}
	return resp, s.save()
}

// sorted returns all tunnels by table and name.
func (s *Service) sorted() []*tunnel {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*tunnel, 0, len(s.tunnels))
	for _, t := range s.tunnels {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *tunnel) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// info describes the tunnel. Every field that the Go SDK dereferences is set.
func (t *tunnel) info(instance string) *protocol.TunnelInfo {
	info := &protocol.TunnelInfo{
		TunnelId:     &t.ID,
		TunnelType:   proto.String(t.Type.String()),
		TableName:    &t.Table,
		InstanceName: &instance,
		StreamId:     &t.StreamID,
		Stage:        proto.String(t.stage()),
		Expired:      proto.Bool(t.Expired),
		TunnelName:   &t.Name,
		Public:       proto.Bool(true),
		CreateTime:   &t.Created,
	}
	if t.assume[assume.NoCreateTime] {
		info.CreateTime = proto.Int64(0)
	}
	if t.hasStream() {
		info.StreamTunnelConfig = &protocol.StreamTunnelConfig{Flag: t.StartFlag.Enum()}
		if t.StartOffset != 0 {
			info.StreamTunnelConfig.StartOffset = proto.Uint64(uint64(t.StartOffset))
		}
		if t.EndOffset != 0 {
			info.StreamTunnelConfig.EndOffset = proto.Uint64(uint64(t.EndOffset))
		}
	}
	return info
}

// describe describes a tunnel and its channels, including those that wait for
// their parents.
func (s *Service) describe(req *protocol.DescribeTunnelRequest) (protoadapt.MessageV1, error) {
	t, err := s.named(req.GetTableName(), req.GetTunnelName(), req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	if err := s.refresh(t); err != nil {
		return nil, err
	}
	resp := &protocol.DescribeTunnelResponse{}
	err = s.update(t, func(time.Time) error {
		resp.Tunnel = t.info(s.cfg.Instance)
		resp.TunnelRpo = proto.Int64(t.rpo(func(c *channel) int64 { return c.RPO }))
		for _, c := range t.channels {
			if c.Status == StatusTerminated && t.assume[assume.EndedChannelsHidden] {
				continue
			}
			resp.Channels = append(resp.Channels, &protocol.ChannelInfo{
				ChannelId:     proto.String(c.ID),
				ChannelType:   proto.String(c.kind()),
				ChannelStatus: proto.String(string(c.shown())),
				ClientId:      proto.String(c.Owner),
				ChannelRpo:    proto.Int64(c.RPO),
				ChannelCount:  proto.Int64(c.Count),
			})
		}
		return nil
	})
	return resp, err
}
