package tunnels

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// finishToken says that a channel has been read to its end. It is the only
// token that is not the base64 of a protobuf Token.
const finishToken = "finished"

// tokenVersion is the version of TokenContentV2, which has a count. Version 1
// is the same without it.
const tokenVersion = 2

// position is the content of a token: Token{1 version, 2 content} around
// TokenContentV2{1 primary_key, 2 iterator, 3 timestamp, 4 total_count}. SDKs
// only check whether there is an iterator: then the channel is a stream.
type position struct {
	shard  string // stream: the iterator is shard:offset
	offset int64
	key    []byte // base: start key of the next page, empty at the start of the range
	time   int64  // stream: the time up to which the log is consumed, ns since 1970
	count  int64  // records of the channel before this position
}

var errToken = errors.New("malformed token")

// appendToken appends the token for p to dst.
func appendToken(dst []byte, p position) []byte {
	var content []byte
	if p.shard == "" {
		if len(p.key) > 0 {
			content = appendBytes(content, 1, p.key)
		}
	} else {
		var buf [96]byte
		it := append(buf[:0], p.shard...)
		it = append(it, ':')
		it = strconv.AppendInt(it, p.offset, 10)
		content = appendBytes(content, 2, it)
	}
	content = appendVarint(content, 3, p.time)
	content = appendVarint(content, 4, p.count)
	var token []byte
	token = appendVarint(token, 1, tokenVersion)
	token = appendBytes(token, 2, content)
	return base64.StdEncoding.AppendEncode(dst, token)
}

func tokenString(p position) string { return string(appendToken(nil, p)) }

// parseToken decodes any token except the finish token.
func parseToken(token []byte) (position, error) {
	raw, err := base64.StdEncoding.AppendDecode(nil, token)
	if err != nil {
		return position{}, errToken
	}
	var version int64
	var content []byte
	err = eachField(raw, func(num protowire.Number, v int64, b []byte) {
		switch num {
		case 1:
			version = v
		case 2:
			content = b
		}
	})
	if err != nil || content == nil {
		return position{}, errToken
	}
	if version != 1 && version != tokenVersion {
		return position{}, fmt.Errorf("token version %d is not supported", version)
	}
	var p position
	var iterator string
	err = eachField(content, func(num protowire.Number, v int64, b []byte) {
		switch num {
		case 1:
			p.key = b
		case 2:
			iterator = string(b)
		case 3:
			p.time = v
		case 4:
			p.count = v
		}
	})
	if err != nil {
		return position{}, errToken
	}
	if iterator == "" {
		return p, nil
	}
	colon := strings.LastIndexByte(iterator, ':')
	if colon <= 0 || len(p.key) > 0 {
		return position{}, errToken
	}
	p.shard = iterator[:colon]
	p.offset, err = strconv.ParseInt(iterator[colon+1:], 10, 64)
	if err != nil || p.offset < 0 {
		return position{}, errToken
	}
	return p, nil
}

// positionIn decodes a token for channel c, to which it must belong.
func positionIn(c *channelRecord, token []byte) (position, error) {
	p, err := parseToken(token)
	if err != nil {
		return position{}, err
	}
	if c.Base && p.shard != "" || !c.Base && p.shard != c.ID {
		return position{}, fmt.Errorf("the token is not one of channel %q", c.ID)
	}
	return p, nil
}
