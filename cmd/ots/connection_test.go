package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// profilesIn writes a file of profiles with a mode and returns its path.
func profilesIn(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profiles.yaml")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

const twoProfiles = `default: test
profiles:
  test: {endpoint: "https://test.example.com", instance: test, access_key_id: test-id, access_key_secret: test-secret}
  prod: {endpoint: "https://prod.example.com", instance: prod, region: cn-hangzhou, access_key_id: prod-id, access_key_secret: prod-secret, security_token: prod-token}
`

func TestConnection_takes_each_setting_from_the_first_place_that_has_it(t *testing.T) {
	type env map[string]string
	for name, test := range map[string]struct {
		flags connection
		env   env
		want  string // endpoint, instance, region, key
	}{
		"the file's default":              {want: "https://test.example.com test  test-id"},
		"$OTS_PROFILE":                    {env: env{envProfile: "prod"}, want: "https://prod.example.com prod cn-hangzhou prod-id"},
		"the environment over a default":  {env: env{envInstance: "i", envKeyID: "id", envSecret: "s"}, want: "https://test.example.com i  id"},
		"--profile over the environment":  {flags: connection{profile: "prod"}, env: env{envInstance: "i", envKeyID: "id", envSecret: "s"}, want: "https://prod.example.com prod cn-hangzhou prod-id"},
		"a flag over everything":          {flags: connection{profile: "prod", instance: "f"}, env: env{envInstance: "i"}, want: "https://prod.example.com f cn-hangzhou prod-id"},
		"--profile over $OTS_PROFILE":     {flags: connection{profile: "test"}, env: env{envProfile: "prod"}, want: "https://test.example.com test  test-id"},
		"the environment alone would do,": {env: env{envEndpoint: "https://e.example.com", envInstance: "i", envKeyID: "id", envSecret: "s"}, want: "https://e.example.com i  id"},
	} {
		t.Run(name, func(t *testing.T) {
			noConnection(t)
			t.Setenv(envProfiles, profilesIn(t, 0o600, twoProfiles))
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			c := test.flags
			if err := c.complete(); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(c.endpoint, " ", c.instance, " ", c.region, " ", c.credentials.AccessKeyID); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestConnection_takes_both_keys_and_the_token_from_one_place(t *testing.T) {
	noConnection(t)
	t.Setenv(envProfiles, profilesIn(t, 0o600, twoProfiles))
	t.Setenv(envProfile, "prod")
	t.Setenv(envKeyID, "id")
	t.Setenv(envSecret, "secret")
	var c connection
	if err := c.complete(); err != nil || c.credentials.SecurityToken != "" {
		t.Errorf("the token %q of the profile is used with the key of the environment (%v)", c.credentials.SecurityToken, err)
	}
	t.Setenv(envSecret, "")
	c = connection{}
	if err := c.complete(); err == nil || !strings.Contains(err.Error(), envSecret) {
		t.Errorf("half of the keys in the environment: %v", err)
	}
}

func TestConnection_errors_name_the_setting_and_what_it_takes(t *testing.T) {
	secret := "hush-hush"
	for name, test := range map[string]struct {
		mode os.FileMode
		file string
		args []string
		want []string
	}{
		"other users may read the file": {0o644, twoProfiles, nil, []string{"mode 0644", "chmod 600", envProfiles}},
		"an unknown profile":            {0o600, twoProfiles, []string{"--profile", "live"}, []string{"--profile", `"live"`, "prod, test"}},
		"an unknown default":            {0o600, "default: live\n", nil, []string{"default", `"live"`, "no profiles"}},
		"an unknown key":                {0o600, "profiles:\n  test: {endpont: x, access_key_secret: " + secret + "}\n", nil, []string{"line 2", "endpont", "endpoint"}},
		"a value of another type":       {0o600, "profiles:\n  test: {allow_insecure: " + secret + "}\n", nil, []string{"line 2", "another type"}},
		"not YAML":                      {0o600, "profiles: {" + secret, nil, []string{"not YAML"}},
		"an endpoint with a path":       {0o600, twoProfiles, []string{"--endpoint", "https://x.example.com/y"}, []string{"--endpoint", "path"}},
		"plain http":                    {0o600, twoProfiles, []string{"--endpoint", "http://x.example.com"}, []string{"--endpoint", "--allow-insecure"}},
		"a region that is none":         {0o600, twoProfiles, []string{"--region", "Hangzhou!"}, []string{"--region", "cn-hangzhou"}},
	} {
		t.Run(name, func(t *testing.T) {
			noConnection(t)
			t.Setenv(envProfiles, profilesIn(t, test.mode, test.file))
			code, stdout, stderr := command(t, append([]string{"table", "list"}, test.args...)...)
			if code != exitUsage || stdout != "" {
				t.Errorf("exit %d, stdout %q", code, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr %q does not say %q", stderr, want)
				}
			}
			if strings.Contains(stderr, secret) || strings.Contains(stderr, "-secret") {
				t.Errorf("stderr %q shows a secret", stderr)
			}
		})
	}
}

func TestProfile_is_never_printed_with_its_keys(t *testing.T) {
	p := profile{Instance: "i", AccessKeyID: "hush-id", AccessKeySecret: "hush-secret", SecurityToken: "hush-token"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, p); strings.Contains(text, "hush") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestConnection_names_the_demo_where_nothing_is_set_and_nothing_listens(t *testing.T) {
	noConnection(t)
	code, _, stderr := command(t, "table", "list")
	if code == exitOK {
		t.Skip("an emulator runs at " + demoAddr)
	}
	if code != exitUsage || !strings.Contains(stderr, "--endpoint") || !strings.Contains(stderr, "ots emulator --demo") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
