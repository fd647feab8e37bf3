package tunnels

import (
	"testing"

	sdk "github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

func TestToken(t *testing.T) {
	t.Run("the official SDK decodes it, and distinguishes stream and base by the iterator", func(t *testing.T) {
		for _, p := range []position{
			{shard: "shard-1", offset: 42, time: 1700000000000000000, count: 9},
			{shard: "a:b", offset: 0},
			{key: []byte("start"), count: 9},
			{},
		} {
			got, err := sdk.ParseRequestToken(tokenString(p))
			if err != nil {
				t.Fatalf("%+v: %v", p, err)
			}
			if isStream := got.GetIterator() != ""; isStream != (p.shard != "") || string(got.GetPrimaryKey()) != string(p.key) ||
				got.GetTotalCount() != p.count || got.GetTimestamp() != p.time {
				t.Errorf("%+v became %v", p, got)
			}
			back, err := parseToken([]byte(tokenString(p)))
			if err != nil || back.shard != p.shard || back.offset != p.offset {
				t.Errorf("%+v became %+v (%v)", p, back, err)
			}
		}
	})
	t.Run("an older token without a count is read too", func(t *testing.T) {
		v1 := appendBytes(appendVarint(nil, 1, 1), 2, appendBytes(nil, 2, []byte("s:5")))
		p, err := parseToken(encode64(v1))
		if err != nil || p.shard != "s" || p.offset != 5 || p.count != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("everything else is an error", func(t *testing.T) {
		content := func(b []byte) []byte { return encode64(appendBytes(appendVarint(nil, 1, 2), 2, b)) }
		for name, token := range map[string][]byte{
			"empty":                  nil,
			"not base64":             []byte("finished!"),
			"not protobuf":           encode64([]byte{0xff}),
			"no content":             encode64(appendVarint(nil, 1, 2)),
			"no version":             encode64(appendBytes(nil, 2, nil)),
			"version 3":              encode64(appendBytes(appendVarint(nil, 1, 3), 2, nil)),
			"content not protobuf":   content([]byte{0xff}),
			"iterator without colon": content(appendBytes(nil, 2, []byte("s"))),
			"iterator without shard": content(appendBytes(nil, 2, []byte(":1"))),
			"negative offset":        content(appendBytes(nil, 2, []byte("s:-1"))),
			"iterator and key":       content(appendBytes(appendBytes(nil, 1, []byte("k")), 2, []byte("s:1"))),
		} {
			if p, err := parseToken(token); err == nil {
				t.Errorf("%s: %+v", name, p)
			}
		}
	})
}
