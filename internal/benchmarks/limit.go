package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// channelsVariable tells the consumer "limit" how many channels there are: it asks for no heartbeat.
const channelsVariable = "WATERMILL_OTS_BENCHMARK_CHANNELS"

// runLimit reads all channels and verifies the checksums of all rows, and nothing else: no
// consumer that checks what it reads can be faster. It has one page of each channel in
// flight, decodes into memory that it uses again, and makes nothing of a row.
func runLimit(ctx context.Context, endpoint string, m *meter) error {
	channels, err := strconv.Atoi(os.Getenv(channelsVariable))
	if err != nil {
		return fmt.Errorf("%s: %w", channelsVariable, err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: channels, DisableCompression: true}}
	defer client.CloseIdleConnections()
	var reading sync.WaitGroup
	failed := make(chan error, channels)
	for i := range channels {
		reading.Go(func() { // ends with ctx
			failed <- readLimit(ctx, client, endpoint, "channel-"+strconv.Itoa(i), m)
		})
	}
	for range channels {
		if err := <-failed; err != nil && ctx.Err() == nil {
			return err
		}
	}
	reading.Wait()
	return nil
}

func readLimit(ctx context.Context, client *http.Client, endpoint, channel string, m *meter) error {
	next := token(0, false)
	var body bytes.Buffer
	var row plainbuffer.Row
	for ctx.Err() == nil {
		request, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.ReadRecordsRequest{
			TunnelId: proto.String("bench"), ClientId: proto.String("client"), ChannelId: &channel, Token: &next,
		}))
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/tunnel/readrecords", bytes.NewReader(request))
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body.Reset()
		body.Grow(int(max(0, resp.ContentLength)) + bytes.MinRead)
		_, err = io.Copy(&body, resp.Body)
		if err := resp.Body.Close(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if next, err = verifyPage(body.Bytes(), &row, m); err != nil {
			return fmt.Errorf("%s: %w", channel, err)
		}
	}
	return nil
}

// verifyPage decodes all rows of a page, and returns its next token.
func verifyPage(page []byte, row *plainbuffer.Row, m *meter) (next string, err error) {
	for len(page) > 0 {
		num, typ, n := protowire.ConsumeTag(page)
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		page = page[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, page); n < 0 {
				return "", protowire.ParseError(n)
			}
			page = page[n:]
			continue
		}
		field, n := protowire.ConsumeBytes(page)
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		page = page[n:]
		if num == 2 {
			next = string(field)
			continue
		}
		raw, err := bytesField(field, 2)
		if err != nil {
			return "", err
		}
		if err := plainbuffer.Decode(raw, row); err != nil {
			return "", err
		}
		m.done(0)
	}
	return next, nil
}
