package credentials

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/aliyun/credentials-go/credentials/providers"
)

// Source is where credentials come from.
type Source string

// The sources, in the order in which New looks for them.
const (
	Environment Source = "environment"
	OIDC        Source = "oidc"
	CLIProfile  Source = "cli_profile"
	Profile     Source = "profile"
	ECSRole     Source = "ecs_role"
)

// Environment variables of Alibaba Cloud's SDKs.
const (
	envKeyID           = "ALIBABA_CLOUD_ACCESS_KEY_ID"
	envKeySecret       = "ALIBABA_CLOUD_ACCESS_KEY_SECRET"
	envOIDCToken       = "ALIBABA_CLOUD_OIDC_TOKEN"
	envOIDCTokenFile   = "ALIBABA_CLOUD_OIDC_TOKEN_FILE"
	envOIDCProvider    = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN"
	envRole            = "ALIBABA_CLOUD_ROLE_ARN"
	envCLIFile         = "ALIBABA_CLOUD_CONFIG_FILE"
	envCLIDisabled     = "ALIBABA_CLOUD_CLI_PROFILE_DISABLED"
	envProfileFile     = "ALIBABA_CLOUD_CREDENTIALS_FILE"
	envECSRoleDisabled = "ALIBABA_CLOUD_ECS_METADATA_DISABLED"
)

// ErrNoSource is wrapped by New's error when nothing is configured.
var ErrNoSource = errors.New("no source of credentials is configured")

// configured returns the first source that is configured.
func configured() (Source, error) {
	for _, look := range []struct {
		source Source
		found  func() (bool, error)
	}{
		{Environment, environment}, {OIDC, oidc},
		{CLIProfile, func() (bool, error) { return !isTrue(envCLIDisabled) && present(envCLIFile, CLIProfile), nil }},
		{Profile, func() (bool, error) { return present(envProfileFile, Profile), nil }},
		{ECSRole, func() (bool, error) { return !isTrue(envECSRoleDisabled), nil }},
	} {
		found, err := look.found()
		if err != nil {
			return "", err
		}
		if found {
			return look.source, nil
		}
	}
	return "", fmt.Errorf("%w: set %s and %s, or one of the others that package credentials documents (%s is true)", ErrNoSource, envKeyID, envKeySecret, envECSRoleDisabled)
}

func environment() (bool, error) {
	return together(envKeyID, envKeySecret)
}

func oidc() (bool, error) {
	token := envOIDCTokenFile
	if os.Getenv(token) == "" && os.Getenv(envOIDCToken) != "" {
		token = envOIDCToken
	}
	if os.Getenv(token) == "" && os.Getenv(envOIDCProvider) == "" {
		return false, nil // a role alone may be there for something else
	}
	return together(token, envOIDCProvider, envRole)
}

// together reports whether all the variables are set. If only some are, it returns
// an error.
func together(names ...string) (bool, error) {
	var set, missing []string
	for _, name := range names {
		if os.Getenv(name) == "" {
			missing = append(missing, name)
		} else {
			set = append(set, name)
		}
	}
	if len(set) > 0 && len(missing) > 0 {
		return false, fmt.Errorf("%s is set and %s is not: set both, or neither", strings.Join(set, ", "), strings.Join(missing, ", "))
	}
	return len(missing) == 0, nil
}

func isTrue(name string) bool { return strings.EqualFold(os.Getenv(name), "true") }

// present reports whether a profile file is named or exists at its default path. A
// file that cannot be read is present: the first request reports why.
func present(name string, source Source) bool {
	if os.Getenv(name) != "" {
		return true
	}
	_, err := os.Stat(file(source))
	return err == nil || !errors.Is(err, os.ErrNotExist)
}

// file is the file that a source reads; "" for sources without one.
func file(source Source) string {
	home, _ := os.UserHomeDir() // without one the name is relative, and not there
	switch source {
	case CLIProfile:
		return cmp.Or(os.Getenv(envCLIFile), filepath.Join(home, ".aliyun", "config.json"))
	case Profile:
		return cmp.Or(os.Getenv(envProfileFile), filepath.Join(home, ".alibabacloud", "credentials"))
	}
	return ""
}

// build returns credentials-go's provider for a source.
func build(source Source, cfg Config) (providers.CredentialsProvider, error) {
	http := &providers.HttpOptions{Proxy: cfg.Proxy}
	switch source {
	case Environment:
		return providers.NewEnvironmentVariableCredentialsProviderBuilder().Build()
	case OIDC:
		return providers.NewOIDCCredentialsProviderBuilder().WithSTSEndpoint(cfg.STSEndpoint).WithHttpOptions(http).Build()
	case CLIProfile:
		return providers.NewCLIProfileCredentialsProviderBuilder().Build()
	case Profile:
		return providers.NewProfileCredentialsProviderBuilder().Build()
	case ECSRole:
		return providers.NewECSRAMRoleCredentialsProviderBuilder().WithRoleName(cfg.RoleName).WithHttpOptions(http).Build()
	}
	return nil, fmt.Errorf("Config.Source is %q: use %q, %q, %q, %q or %q, or leave it empty to find one", source, Environment, OIDC, CLIProfile, Profile, ECSRole)
}
