package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

const (
	tableCallTimeout = 20 * time.Second
	// tableTries is how often a call is tried that fails in a way that passes.
	tableTries = 3
	tablePause = 100 * time.Millisecond // before the second try; doubles
)

// tableClient makes calls of the table API of one instance, for dead-letter
// tables. Safe for concurrent use.
type tableClient struct {
	instance  Instance
	transport http.RoundTripper
	creds     *credentialsCache
}

// call makes one call with a client of the SDK, tied to ctx. f must be
// idempotent: it is called again after failures that pass.
func (c *tableClient) call(ctx context.Context, f func(*tablestore.TableStoreClient) error) error {
	pause := tablePause
	for try := 1; ; try++ {
		err := c.callOnce(ctx, f)
		if err == nil || try == tableTries || !passing(err) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pause)
		pause *= 2
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

func (c *tableClient) callOnce(ctx context.Context, f func(*tablestore.TableStoreClient) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tableCallTimeout, fmt.Errorf("no answer within %v: %w", tableCallTimeout, context.DeadlineExceeded))
	defer cancel()
	cred, err := c.creds.get(ctx)
	if err != nil {
		return fmt.Errorf("asking for credentials: %w", err)
	}
	// The SDK's calls take no context and its retries sleep through
	// everything. So a client is made for each call, a few small structs,
	// whose transport has the call's context, and it does not retry (zero RetryTimes).
	config := &tablestore.TableStoreConfig{Transport: &contextTransport{ctx: ctx, base: c.transport}}
	client := tablestore.NewClientWithConfig(strings.TrimRight(c.instance.Endpoint, "/"), c.instance.Name, "", "", "", config,
		tablestore.SetCredentialsProvider(fixedCredentials{common.DefaultCredentials{
			AccessKeyID: cred.AccessKeyID, AccessKeySecret: cred.AccessKeySecret, SecurityToken: cred.SecurityToken,
		}}))
	if err := f(client); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if hasCode(err, codeAuthFailed, codeNoPermission) {
			c.creds.forget()
			return fmt.Errorf("%w: %w", subscriber.ErrAuth, err)
		}
		return err
	}
	return nil
}

// fixedCredentials are the SDK's view of credentials that were asked for.
type fixedCredentials struct{ common.DefaultCredentials }

func (f fixedCredentials) GetCredentials() common.Credentials { return &f.DefaultCredentials }

// contextTransport ties the requests of one call to its context.
type contextTransport struct {
	ctx  context.Context
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *contextTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.base.RoundTrip(req.WithContext(t.ctx))
}

// Codes of the table API.
const (
	codeObjectNotExist     = "OTSObjectNotExist"
	codeObjectAlreadyExist = "OTSObjectAlreadyExist"
	codePartitionLoading   = "OTSPartitionUnavailable"
	codeTableNotReady      = "OTSTableNotReady"
	codeAuthFailed         = "OTSAuthFailed"
	codeNoPermission       = "OTSNoPermissionAccess"
)

// hasCode reports whether err is an answer of the service with one of the codes.
func hasCode(err error, codes ...string) bool {
	var oe *tablestore.OtsError
	if !errors.As(err, &oe) {
		return false
	}
	for _, code := range codes {
		if oe.Code == code {
			return true
		}
	}
	return false
}

// passing reports whether a call that failed so may succeed when it is made again.
func passing(err error) bool {
	var oe *tablestore.OtsError
	if !errors.As(err, &oe) {
		return !errors.Is(err, context.Canceled)
	}
	return oe.HttpStatusCode >= 500 || hasCode(err, codePartitionLoading, codeTableNotReady)
}

// deadLetterInstance is the name of the instance that holds t's dead-letter table.
func (t Tunnel) deadLetterInstance() string {
	return cmp.Or(t.Failure.DeadLetter.Instance, t.Instance)
}
