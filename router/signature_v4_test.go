//go:build !sdk_1_7_17

package router_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
)

func TestSignatureV4_is_that_of_tunnels_and_dead_letter_tables(t *testing.T) {
	bed := testbed.New(t, emulator.Options{Region: "cn-hangzhou"})
	yaml := strings.Replace(fileFor(bed, "    failure: {dead_letter: {table: dead}}\n"),
		"    access_key_id:", "    debug: true\n    signature_version: v4\n    region: cn-hangzhou\n    access_key_id:", 1)
	log := logLines{all: new(lockedLines)}
	r := buildLogging(t, yaml, log)
	if err := r.Handle("numbers", router.Handlers{Process: func(*message.Message) error { return backoff.Permanent(errPoison) }}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close
	<-r.Running()
	bed.PutAll(3, 1)
	testbed.Eventually(t, 20*time.Second, "dead letters were written", func() bool { return len(letterRows(t, bed, "dead")) == 3 })
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	all := log.text()
	for _, path := range []string{"/tunnel/readrecords", "/CreateTable", "/PutRow"} {
		if !strings.Contains(all, path) {
			t.Errorf("no request of %s was logged", path)
		}
	}
	if !strings.Contains(all, "x-ots-signregion:cn-hangzhou") || !strings.Contains(all, "x-ots-signaturev4:"+"REDACTED") || strings.Contains(all, "x-ots-signature:") {
		t.Error("requests were signed in another way, or the log shows the signature")
	}
}
