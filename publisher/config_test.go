package publisher

import (
	"strings"
	"testing"
	"time"
)

func TestNew_names_every_fault_in_one_error(t *testing.T) {
	_, err := New(Config{
		Endpoint:      "http://example.com",
		Columns:       Columns{Key: "1st", UUID: "payload", Metadata: strings.Repeat("m", 256)},
		MaxBatchRows:  201,
		MaxBatchBytes: -1,
		CallTimeout:   -1, CloseTimeout: -1,
		NewTable: TableSpec{TimeToLive: time.Hour, StreamRetention: 90 * time.Minute},
		Region:   "cn-hangzhou",
	}, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"publisher configuration: Config.Endpoint is \"http://example.com\": plain http",
		"Config.Instance is empty", "Config.AccessKeyID is empty", "Config.AccessKeySecret is empty", `Config.Region is "cn-hangzhou", which only signature version 4 uses`,
		`Config.Columns.Key is "1st"`, `Config.Columns.Payload is "payload", as is another column`, "Config.Columns.Metadata is \"mmm",
		"Config.MaxBatchRows is 201", "Config.MaxBatchBytes is -1", "Config.CallTimeout is -1ns", "Config.CloseTimeout is -1ns",
		"Config.NewTable.TimeToLive is 1h0m0s", "Config.NewTable.StreamRetention is 1h30m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q", want)
		}
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 14 {
		t.Errorf("the error has %d lines:\n%v", lines, err)
	}
	if strings.Contains(err.Error(), "subscriber") {
		t.Errorf("the error is about a subscriber:\n%v", err)
	}
}

func TestNew_accepts_the_longest_times(t *testing.T) {
	p, err := New(Config{
		Endpoint: "https://example.com", Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret",
		NewTable: TableSpec{TimeToLive: maxTimeToLive, StreamRetention: maxRetention},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
