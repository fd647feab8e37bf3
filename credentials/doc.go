// Package credentials finds the credentials of a program where Alibaba Cloud
// puts them: the environment, Kubernetes service accounts (OIDC, RRSA), profile
// files and the RAM role of an ECS instance. It is a separate module, so that
// only programs that use it link github.com/aliyun/credentials-go.
//
//	provider, err := credentials.New(credentials.Config{})
//	defer provider.Close()
//	sub, err := subscriber.New(subscriber.Config{Credentials: provider, ...}, logger)
//
// In package router: r.RegisterCredentials("default", provider), and
// credentials: default in the YAML file.
//
// # Which source
//
// New takes the first that is configured, in the order of Alibaba Cloud's SDKs:
//
//  1. Environment: ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET,
//     with ALIBABA_CLOUD_SECURITY_TOKEN for a key of STS.
//  2. OIDC: ALIBABA_CLOUD_OIDC_TOKEN_FILE (or ALIBABA_CLOUD_OIDC_TOKEN),
//     ALIBABA_CLOUD_OIDC_PROVIDER_ARN and ALIBABA_CLOUD_ROLE_ARN, which RRSA sets.
//  3. CLIProfile: ~/.aliyun/config.json or ALIBABA_CLOUD_CONFIG_FILE.
//  4. Profile: ~/.alibabacloud/credentials or ALIBABA_CLOUD_CREDENTIALS_FILE.
//  5. ECSRole: the instance's metadata service, unless
//     ALIBABA_CLOUD_ECS_METADATA_DISABLED is true.
//
// It stays with that source. The default chain of credentials-go does not: when
// the first request to STS fails, it switches to the metadata service for good, so
// that a pod signs with the role of its node. For the same reason New returns an
// error for a source that is only half configured.
//
// # Renewal
//
// Sources of session keys (OIDC, ECSRole, roles of profiles) are asked every two
// minutes and answer from memory. They fetch new keys three minutes before the old
// ones expire; while that fails, subscribers and publishers sign with the old ones.
// credentials-go does not fetch a session earlier when the service refuses the
// current one. A changed profile file is read again at the next request; static keys
// are requested again when the service refuses them.
package credentials
