package main

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToRedis_forwards_each_change_in_order(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { forwardtest.Forwards(t, false, "REDIS_URL=", "REDIS_ADDR=") })
	t.Run("server", func(t *testing.T) {
		url := forwardtest.Server(t, "REDIS_URL", "redis://127.0.0.1:6379/0")
		name := forwardtest.Forwards(t, false, "REDIS_URL="+url)
		options, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(options)
		defer client.Close()
		if n, err := client.Exists(t.Context(), name).Result(); err != nil || n > 0 {
			t.Errorf("the stream %s was not deleted: %d, %v", name, n, err)
		}
	})
}

func TestToRedis_says_which_server_it_cannot_use(t *testing.T) {
	forwardtest.Refuses(t, "REDIS_URL", "redis://user:geheim@127.0.0.1:1/0")
	forwardtest.Refuses(t, "REDIS_URL", "redis://user:geheim@127.0.0.1:1x/0")
	forwardtest.Refuses(t, "REDIS_ADDR", "127.0.0.1:1", "REDIS_URL=")
}
