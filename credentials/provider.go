package credentials

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/aliyun/credentials-go/credentials/providers"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/ots"
)

// lasts is how long session keys from credentials-go are certainly valid: it fetches
// others three minutes before the end, and does not say when that is.
const lasts = 3 * time.Minute

// Config configures a Provider. With the zero Config New finds the source.
type Config struct {
	// Source is where credentials come from. Default: the first that is
	// configured, see the package comment.
	Source Source

	// RoleName is the RAM role of the ECS instance. Default:
	// ALIBABA_CLOUD_ECS_METADATA, or what the metadata service says.
	RoleName string

	// STSEndpoint is the host of STS for OIDC. Default: that of
	// ALIBABA_CLOUD_STS_REGION, or sts.aliyuncs.com.
	STSEndpoint string

	// Proxy is the URL of an HTTP proxy for STS (OIDC) and the metadata service.
	// Default: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
	Proxy string
}

// Provider returns the credentials of one source. It is an
// ots.CredentialsProvider and may be shared: it sends its source one request at a
// time. Close it when it is no longer used.
type Provider struct {
	source Source
	cfg    Config
	lasts  time.Duration

	// Used only by the goroutine in fetch; there is one at a time.
	inner providers.CredentialsProvider
	read  os.FileInfo // of the source's file when inner was built

	mu      sync.Mutex // guards the following
	current *question  // nil: no request is in flight
	closed  bool
	running sync.WaitGroup
}

var _ ots.CredentialsProvider = (*Provider)(nil)

// question is one request to the source, shared by all callers that wait for it.
type question struct {
	done chan struct{} // closed once cred and err are set
	cred ots.Credentials
	err  error
}

// ErrClosed is returned by Credentials after Close.
var ErrClosed = errors.New("the credentials provider is closed")

// New finds the source of credentials. It does not send it a request yet.
func New(cfg Config) (*Provider, error) {
	source := cfg.Source
	if source == "" {
		var err error
		if source, err = configured(); err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
	}
	p := &Provider{source: source, cfg: cfg, lasts: lasts}
	if err := p.rebuild(); err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return p, nil
}

// Source returns where the credentials come from.
func (p *Provider) Source() Source { return p.source }

// String returns the source without any secret.
func (p *Provider) String() string { return "credentials of " + string(p.source) }

// GoString returns the same as String, so that %#v shows no secret either.
func (p *Provider) GoString() string { return p.String() }

// Credentials returns credentials that are valid for at least some minutes. It
// returns when ctx ends; the request to the source continues, up to the timeouts of
// credentials-go (15 s), and the next caller gets its answer.
func (p *Provider) Credentials(ctx context.Context) (ots.Credentials, error) {
	q, err := p.ask()
	if err != nil {
		return ots.Credentials{}, fmt.Errorf("%v: %w", p, err)
	}
	select {
	case <-q.done:
		if q.err != nil {
			return ots.Credentials{}, fmt.Errorf("%v: %w", p, q.err)
		}
		return q.cred, nil
	case <-ctx.Done():
		return ots.Credentials{}, fmt.Errorf("%v: %w", p, context.Cause(ctx))
	}
}

// Close waits for the request in flight. Credentials returns ErrClosed afterwards.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
	return nil
}

// ask returns the request in flight, or starts one.
func (p *Provider) ask() (*question, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.current != nil:
		return p.current, nil
	}
	q := &question{done: make(chan struct{})}
	p.current = q
	p.running.Go(func() { // ends with credentials-go's timeouts; Close waits
		q.cred, q.err = p.fetch()
		p.mu.Lock()
		p.current = nil
		p.mu.Unlock()
		close(q.done)
	})
	return q, nil
}

// fetch sends a request to the source. Only one goroutine at a time is in it.
func (p *Provider) fetch() (cred ots.Credentials, err error) {
	defer func() { // credentials-go dereferences fields that an answer may lack
		if v := recover(); v != nil {
			err = fmt.Errorf("malformed answer: %w", ack.NewPanicError("credentials-go", v))
		}
	}()
	if p.changed() {
		if err := p.rebuild(); err != nil {
			return cred, err
		}
	}
	got, err := p.inner.GetCredentials()
	if err != nil {
		return cred, err
	}
	cred = ots.Credentials{AccessKeyID: got.AccessKeyId, AccessKeySecret: got.AccessKeySecret, SecurityToken: got.SecurityToken}
	if cred.SecurityToken != "" && p.source != Environment { // which cannot change
		cred.Expires = time.Now().Add(p.lasts)
	}
	return cred, nil
}

func (p *Provider) rebuild() (err error) {
	if name := file(p.source); name != "" {
		p.read, _ = os.Stat(name) // where it fails, asking says why
	}
	p.inner, err = build(p.source, p.cfg)
	return err
}

// changed reports whether the source's file has changed since it was read.
func (p *Provider) changed() bool {
	name := file(p.source)
	if name == "" {
		return false
	}
	found, err := os.Stat(name)
	if err != nil {
		return p.read != nil
	}
	return p.read == nil || !os.SameFile(found, p.read) || !found.ModTime().Equal(p.read.ModTime()) || found.Size() != p.read.Size()
}
