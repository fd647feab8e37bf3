// To-redis forwards the changes of a table to a Redis stream, with a Watermill
// Router and Watermill's Redis publisher, and compares what a reader of the
// stream receives with what was written.
//
//	go run ./examples/to-redis
//
// needs only Go: the table and miniredis, an imitation of Redis, are inside the
// process. It ends by itself, or cleanly on Ctrl-C.
//
// With REDIS_URL (redis://user:password@host:6379/0) or REDIS_ADDR (host:6379)
// set, it creates a stream on that server, and deletes it at the end.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/watermill-ots/watermill-ots/examples/forward"
)

func main() { forward.Main("to-redis", open) }

func open(ctx context.Context, b *forward.Broker) error {
	options, kind, err := server(b)
	if err != nil {
		return err
	}
	redis.SetLogger(clientLog{b.Logger})
	reader := redis.NewClient(options)
	b.AtEnd(func(context.Context) error { return reader.Close() })
	if err := reader.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("connect to Redis at %s, of REDIS_URL or REDIS_ADDR: %w", options.Addr, err)
	}
	b.AtEnd(func(ctx context.Context) error { return reader.Del(ctx, b.Name).Err() })
	b.Server = fmt.Sprintf("%s, %s, stream %s", kind, options.Addr, b.Name)

	// The stream grows without limit unless PublisherConfig.DefaultMaxlen
	// bounds it.
	b.Publisher, err = redisstream.NewPublisher(redisstream.PublisherConfig{Client: redis.NewClient(options)}, b.Logger)

	// Order per key costs nothing on the server, since a stream has a single
	// order. It costs the consumer its parallelism: the order holds with one
	// reader, not across the members of a group.
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return read(ctx, reader, b.Name, got) }
	return err
}

// clientLog receives what go-redis would print to stderr: its errors are
// returned by its calls.
type clientLog struct{ watermill.LoggerAdapter }

// Printf implements the logger of go-redis.
func (l clientLog) Printf(_ context.Context, format string, v ...any) {
	l.Debug(fmt.Sprintf(format, v...), nil)
}

func read(ctx context.Context, client *redis.Client, stream string, got func(uuid string, payload []byte)) error {
	for after := "0"; ctx.Err() == nil; {
		args := &redis.XReadArgs{Streams: []string{stream, after}, Count: 100, Block: 100 * time.Millisecond}
		found, err := client.XRead(ctx, args).Result()
		if errors.Is(err, redis.Nil) { // nothing within the time of Block
			continue
		}
		if err != nil {
			return err
		}
		for _, entry := range found[0].Messages {
			msg, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(entry.Values)
			if err != nil {
				return fmt.Errorf("entry %s of stream %s: %w", entry.ID, stream, err)
			}
			got(msg.UUID, msg.Payload)
			after = entry.ID
		}
	}
	return nil
}

// server uses the server in the environment, or starts one inside this process.
func server(b *forward.Broker) (options *redis.Options, kind string, err error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		if options, err = redis.ParseURL(url); err != nil { // not in the error, which may quote the password
			return nil, "", errors.New("REDIS_URL is not a URL of the form redis://user:password@host:6379/0")
		}
		return options, "Redis", nil
	}
	if addr := os.Getenv("REDIS_ADDR"); addr != "" {
		return &redis.Options{Addr: addr}, "Redis", nil
	}
	mini := miniredis.NewMiniRedis()
	if err := mini.Start(); err != nil {
		return nil, "", fmt.Errorf("start miniredis: %w", err)
	}
	b.AtEnd(func(context.Context) error { mini.Close(); return nil })
	return &redis.Options{Addr: mini.Addr()}, "miniredis inside this process", nil
}
