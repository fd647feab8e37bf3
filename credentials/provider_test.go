package credentials

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

func provider(t *testing.T, cfg Config) *Provider {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// want calls p and checks the key id, and that the secret and token belong to it.
func want(t *testing.T, p *Provider, id, secret, token string) ots.Credentials {
	t.Helper()
	got, err := p.Credentials(t.Context())
	if err != nil || got.AccessKeyID != id || got.AccessKeySecret != secret || got.SecurityToken != token {
		t.Fatalf("%v gave the keys of %q, %v; want those of %q", p, got.AccessKeyID, err, id)
	}
	return got
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNew_uses_the_first_source_that_is_configured(t *testing.T) {
	home := nowhere(t)
	wantSource := func(source Source) {
		t.Helper()
		if p := provider(t, Config{}); p.Source() != source {
			t.Errorf("took %s, want %s", p.Source(), source)
		}
	}
	wantSource(ECSRole)
	write(t, filepath.Join(home, ".alibabacloud", "credentials"), "[default]\n")
	wantSource(Profile)
	write(t, filepath.Join(home, ".aliyun", "config.json"), "{}")
	wantSource(CLIProfile)
	t.Setenv(envRole, "acs:ram::1:role/r")
	wantSource(CLIProfile) // a role alone does not select OIDC
	t.Setenv(envOIDCProvider, "acs:ram::1:oidc-provider/p")
	t.Setenv(envOIDCTokenFile, "/var/run/token")
	wantSource(OIDC)
	t.Setenv(envKeyID, "id")
	t.Setenv(envKeySecret, "secret")
	wantSource(Environment)
	if p := provider(t, Config{Source: Profile}); p.Source() != Profile {
		t.Errorf("took %s although another was asked for", p.Source())
	}
}

func TestNew_says_what_is_missing(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		cfg  Config
		want string
	}{
		"secret":         {map[string]string{envKeyID: "id"}, Config{}, envKeySecret + " is not"},
		"key id":         {map[string]string{envKeySecret: "hush"}, Config{}, envKeyID + " is not"},
		"role":           {map[string]string{envOIDCTokenFile: "/t", envOIDCProvider: "p"}, Config{}, envRole + " is not"},
		"provider":       {map[string]string{envOIDCTokenFile: "/t", envRole: "r"}, Config{}, envOIDCProvider + " is not"},
		"token":          {map[string]string{envOIDCProvider: "p", envRole: "r"}, Config{}, envOIDCTokenFile + " is not"},
		"everything":     {map[string]string{envECSRoleDisabled: "true"}, Config{}, "no source of credentials is configured"},
		"unknown source": {nil, Config{Source: "vault"}, `Config.Source is "vault"`},
	} {
		t.Run(name, func(t *testing.T) {
			nowhere(t)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			_, err := New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if errors.Is(err, ErrNoSource) != (name == "everything") {
				t.Errorf("%v is ErrNoSource", err)
			}
		})
	}
}

func TestEnvironment_gives_keys_that_do_not_expire(t *testing.T) {
	nowhere(t)
	t.Setenv(envKeyID, "id")
	t.Setenv(envKeySecret, "hush")
	p := provider(t, Config{})
	if got := want(t, p, "id", "hush", ""); !got.Expires.IsZero() {
		t.Errorf("they expire at %v", got.Expires)
	}
	t.Setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "psst")
	if got := want(t, p, "id", "hush", "psst"); !got.Expires.IsZero() {
		t.Errorf("they expire at %v, though the environment has no others", got.Expires)
	}
	if text := fmt.Sprintf("%v %+v %#v", p, p, p); strings.Contains(text, "hush") || strings.Contains(text, "psst") {
		t.Errorf("a secret is in %s", text)
	}
}

func TestProfile_is_read_again_when_it_changes(t *testing.T) {
	home := nowhere(t)
	for source, file := range map[Source]struct{ path, text string }{
		Profile:    {filepath.Join(home, ".alibabacloud", "credentials"), "[default]\ntype = access_key\naccess_key_id = %[1]s\naccess_key_secret = secret of %[1]s\n"},
		CLIProfile: {filepath.Join(home, ".aliyun", "config.json"), `{"current":"default","profiles":[{"name":"default","mode":"AK","access_key_id":"%[1]s","access_key_secret":"secret of %[1]s"}]}`},
	} {
		t.Run(string(source), func(t *testing.T) {
			write(t, file.path, fmt.Sprintf(file.text, "first"))
			p := provider(t, Config{Source: source})
			want(t, p, "first", "secret of first", "")
			write(t, file.path, fmt.Sprintf(file.text, "second"))
			want(t, p, "second", "secret of second", "")
			if err := os.Remove(file.path); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Credentials(t.Context()); err == nil || !strings.Contains(err.Error(), string(source)) {
				t.Errorf("without the file: %v", err)
			}
			write(t, file.path, fmt.Sprintf(file.text, "third"))
			want(t, p, "third", "secret of third", "")
		})
	}
}

func TestECSRole_asks_the_metadata_service_for_a_role_and_keeps_its_keys(t *testing.T) {
	nowhere(t)
	metadata := newCloud(t, httptest.NewServer)
	p := provider(t, Config{Proxy: metadata.URL})
	for range 3 {
		got := want(t, p, "STS.1", "secret of 1", "token of 1")
		if left := time.Until(got.Expires); left > lasts || left < lasts-time.Minute {
			t.Errorf("they are said to last %v, want %v", left, lasts)
		}
	}
	if asked := metadata.questions(); len(asked) != 4 || !slices.Contains(asked, "PUT /latest/api/token") {
		t.Errorf("asked %q, want a token twice, the role's name and its keys", asked)
	}
}

func TestECSRole_fetches_other_keys_before_the_old_ones_end(t *testing.T) {
	nowhere(t)
	metadata := newCloud(t, httptest.NewServer)
	metadata.valid = lasts - time.Second // less than lasts
	p := provider(t, Config{Proxy: metadata.URL, RoleName: "worker-role"})
	want(t, p, "STS.1", "secret of 1", "token of 1")
	want(t, p, "STS.2", "secret of 2", "token of 2")
}

func TestMalformed_answers_are_errors(t *testing.T) {
	nowhere(t)
	metadata := newCloud(t, httptest.NewServer)
	p := provider(t, Config{Proxy: metadata.URL, RoleName: "worker-role"})
	for _, body := range []string{
		``, `{}`, `<html>`, `{"AccessKeyId":"a","AccessKeySecret":"hush","SecurityToken":"psst"}`, // credentials-go panics without a Code
		`{"Code":"Success","AccessKeyId":"a","AccessKeySecret":"hush","SecurityToken":"psst"}`,
		`{"Code":"Success","AccessKeyId":"a","AccessKeySecret":"hush","SecurityToken":"psst","Expiration":"soon"}`,
	} {
		metadata.mu.Lock()
		metadata.answer = func(w http.ResponseWriter, r *http.Request) bool { w.Write([]byte(body)); return true }
		metadata.mu.Unlock()
		if got, err := p.Credentials(t.Context()); err == nil || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "psst") {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
	metadata.mu.Lock()
	metadata.answer = nil
	metadata.mu.Unlock()
	want(t, p, "STS.1", "secret of 1", "token of 1")
}

// rrsa is the environment that RRSA gives a pod, with its own STS.
func rrsa(t *testing.T) (sts *cloud, cfg Config) {
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		t.Skip("crypto/x509 does not read trusted certificates from SSL_CERT_FILE on this system, and credentials-go connects to STS only with https")
	}
	home := nowhere(t)
	sts = newCloud(t, httptest.NewTLSServer)
	write(t, filepath.Join(home, "token"), "service-account-token")
	t.Setenv(envOIDCTokenFile, filepath.Join(home, "token"))
	t.Setenv(envOIDCProvider, "acs:ram::1:oidc-provider/ack")
	t.Setenv(envRole, "acs:ram::1:role/pod")
	return sts, Config{STSEndpoint: strings.TrimPrefix(sts.URL, "https://")}
}

func TestOIDC_assumes_the_role_of_the_service_account(t *testing.T) {
	sts, cfg := rrsa(t)
	p := provider(t, cfg)
	want(t, p, "STS.1", "secret of 1", "token of 1")
	want(t, p, "STS.1", "secret of 1", "token of 1")
	if asked := sts.questions(); len(asked) != 1 || asked[0] != "AssumeRoleWithOIDC" {
		t.Errorf("asked %q", asked)
	}
	for _, part := range []string{"OIDCToken=service-account-token", "RoleArn=acs%3Aram%3A%3A1%3Arole%2Fpod"} {
		if !strings.Contains(sts.forms[0], part) {
			t.Errorf("%s is not in %s", part, sts.forms[0])
		}
	}
}

// The default chain of credentials-go would sign with the role of the node for good.
func TestOIDC_that_fails_at_first_is_retried_and_no_other_source_is_used(t *testing.T) {
	sts, cfg := rrsa(t)
	node := newCloud(t, httptest.NewServer)
	t.Setenv("HTTP_PROXY", node.URL) // the metadata service is reached through it
	p := provider(t, cfg)
	sts.mu.Lock()
	sts.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Error(w, "ServiceUnavailable", http.StatusServiceUnavailable)
		return true
	}
	sts.mu.Unlock()
	if _, err := p.Credentials(t.Context()); err == nil || !strings.Contains(err.Error(), "credentials of oidc") || strings.Contains(err.Error(), "service-account-token") {
		t.Fatalf("got %v", err)
	}
	sts.mu.Lock()
	sts.answer = nil
	sts.mu.Unlock()
	want(t, p, "STS.1", "secret of 1", "token of 1")
	if asked := node.questions(); len(asked) != 0 {
		t.Errorf("the metadata service was asked %q", asked)
	}
}

func TestCredentials_end_with_their_context_and_Close_waits_for_the_request(t *testing.T) {
	nowhere(t)
	asked, release := make(chan struct{}, 2), make(chan struct{})
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		http.Error(w, "no", http.StatusNotFound)
	}))
	metadata.Config.SetKeepAlivesEnabled(false)
	defer metadata.Close()
	p := provider(t, Config{Proxy: metadata.URL, RoleName: "worker-role"})
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { _, err := p.Credentials(ctx); ended <- err }()
	<-asked
	first, _ := p.ask()
	if again, err := p.ask(); again != first || err != nil {
		t.Errorf("a second question goes to the source beside the first, which credentials-go does not bear: %v", err)
	}
	over := errors.New("the session is over")
	cancel(over)
	if err := <-ended; !errors.Is(err, over) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if p.current != nil {
		t.Error("Close has left a question behind")
	}
	if _, err := p.Credentials(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
