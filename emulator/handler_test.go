package emulator_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func TestHTTP(t *testing.T) {
	e := start(t, emulator.Options{})
	r := newRaw(t, e)
	do := func(method, path string, header http.Header, body io.Reader) (*http.Response, *pb.Error) {
		t.Helper()
		req, err := http.NewRequestWithContext(context.Background(), method, e.Endpoint()+path, body)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var e pb.Error
		if resp.StatusCode != http.StatusOK {
			if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&e)); err != nil {
				t.Errorf("the body of status %d is not an error: %v", resp.StatusCode, err)
			}
		}
		return resp, &e
	}
	for _, v := range []struct {
		name, method, path string
		header             http.Header
		body               io.Reader
		status             int
		code               string
	}{
		{"another method", "GET", "/ListTable", nil, nil, 405, "OTSMethodNotAllowed"},
		{"an unknown operation", "POST", "/MakeCoffee", nil, nil, 400, "OTSParameterInvalid"},
		{"an unknown tunnel operation", "POST", "/tunnel/dig", nil, nil, 400, ""},
		{"no operation", "POST", "/", nil, nil, 400, "OTSParameterInvalid"},
		{"a body that is not protobuf", "POST", "/PutRow", nil, strings.NewReader("\xff\xff\xff"), 400, "OTSParameterInvalid"},
		{"a body without the required fields", "POST", "/PutRow", nil, nil, 400, "OTSParameterInvalid"},
		{"a body that is too large", "POST", "/PutRow", nil, bytes.NewReader(make([]byte, 9<<20)), 413, "OTSRequestBodyTooLarge"},
		{"a body of unknown length that is too large", "POST", "/PutRow", nil, io.LimitReader(zeros{}, 9<<20), 413, "OTSRequestBodyTooLarge"},
		{"a body that is not deflated as it says", "POST", "/PutRow", http.Header{"X-Ots-Request-Compress-Type": {"deflate"}}, strings.NewReader("plain"), 400, "OTSParameterInvalid"},
	} {
		t.Run("answers "+v.name+" in the service's form", func(t *testing.T) {
			resp, e := do(v.method, v.path, v.header, v.body)
			expect(t, "status", resp.StatusCode, v.status)
			if v.code != "" {
				expect(t, "code", e.GetCode(), v.code)
			}
			if e.GetCode() == "" {
				t.Error("an error without a code")
			}
			if resp.Header.Get("x-ots-requestid") == "" {
				t.Error("there is no request id, and without one the Java SDK loses the error")
			}
		})
	}
	t.Run("every response has its own request id", func(t *testing.T) {
		a, _ := do("POST", "/ListTable", nil, nil)
		b, _ := do("POST", "/ListTable", nil, nil)
		if x, y := a.Header.Get("x-ots-requestid"), b.Header.Get("x-ots-requestid"); x == "" || x == y {
			t.Errorf("ids are %q and %q", x, y)
		}
	})
	t.Run("responses are signed as the Java SDK's table client verifies", func(t *testing.T) {
		// For each x-ots header, sorted: name, colon, value, line feed; then
		// the path without a line feed. HMAC-SHA1 with the secret, after "OTS
		// <id>:".
		e := start(t, keys)
		s := newSDK(t, e)
		var got *http.Response
		spy := roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := e.Transport().RoundTrip(req)
			got = resp
			return resp, err
		})
		cfg := tablestore.NewDefaultTableStoreConfig()
		cfg.Transport = spy
		s.TableStoreClient = tablestore.NewClientWithConfig(e.Endpoint(), "inst", "ak", "sk", "", cfg)
		if _, err := s.ListTable(); err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, name := range []string{"x-ots-contentmd5", "x-ots-contenttype", "x-ots-date", "x-ots-requestid"} {
			if got.Header.Get(name) == "" {
				t.Errorf("%s is missing", name)
			}
			text += name + ":" + got.Header.Get(name) + "\n"
		}
		mac := hmac.New(sha1.New, []byte("sk"))
		mac.Write([]byte(text + "/ListTable"))
		expect(t, "authorization", got.Header.Get("authorization"), "OTS ak:"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	})
	t.Run("bodies are deflated on request, both ways", func(t *testing.T) {
		r.createIntTable("deflated", 1, 1, false)
		name := "deflated"
		body, err := proto.Marshal(protoadapt.MessageV2Of(&pb.DescribeTableRequest{TableName: &name}))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		z.Write(body)
		z.Close()
		req, err := http.NewRequestWithContext(t.Context(), "POST", e.Endpoint()+"/DescribeTable", &b)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-ots-request-compress-type", "deflate")
		req.Header.Set("x-ots-request-compress-size", strconv.Itoa(len(body)))
		req.Header.Set("x-ots-response-compress-type", "deflate")
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		plain, err := zlib.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		var described pb.DescribeTableResponse
		if err := proto.Unmarshal(answer, protoadapt.MessageV2Of(&described)); err != nil {
			t.Fatal(err)
		}
		expect(t, "table", described.GetTableMeta().GetTableName(), name)
		expect(t, "size", resp.Header.Get("x-ots-response-compress-size"), strconv.Itoa(len(answer)))
	})
	t.Run("a body that inflates too far is refused", func(t *testing.T) {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		io.CopyN(z, zeros{}, 100<<20)
		z.Close()
		resp, e := do("POST", "/PutRow", http.Header{"X-Ots-Request-Compress-Type": {"deflate"}}, &b)
		expect(t, "status", resp.StatusCode, 413)
		expect(t, "code", e.GetCode(), "OTSRequestBodyTooLarge")
	})
	t.Run("stats count requests, errors and bytes", func(t *testing.T) {
		before := e.Stats().Operations["PutRow"]
		do("POST", "/PutRow", nil, strings.NewReader("xxx"))
		after := e.Stats().Operations["PutRow"]
		expect(t, "requests", after.Requests-before.Requests, 1)
		expect(t, "errors", after.Errors-before.Errors, 1)
		expect(t, "bytes", after.BytesReceived-before.BytesReceived, 3)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
