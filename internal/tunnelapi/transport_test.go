package tunnelapi

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

func TestReadBody_is_bounded_and_whole(t *testing.T) {
	t.Parallel()
	body := func(length int64, text string) *http.Response {
		return &http.Response{ContentLength: length, Body: io.NopCloser(strings.NewReader(text))}
	}
	if b, err := readBody(body(3, "abc")); err != nil || string(b) != "abc" {
		t.Errorf("known length: %q, %v", b, err)
	}
	if b, err := readBody(body(-1, "abc")); err != nil || string(b) != "abc" {
		t.Errorf("unknown length: %q, %v", b, err)
	}
	if _, err := readBody(body(4, "abc")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
	if _, err := readBody(body(service.MaxAnswer+1, "")); err == nil {
		t.Error("a length beyond the bound is taken")
	}
	endless := &http.Response{ContentLength: -1, Body: io.NopCloser(io.LimitReader(zeroes{}, service.MaxAnswer+2))}
	if _, err := readBody(endless); err == nil {
		t.Error("a body beyond the bound is taken")
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }
