// Package credentials finds the credentials of a program where Alibaba Cloud
// puts them: the environment, Kubernetes service accounts (OIDC, RRSA), profile
// files and the RAM role of an ECS instance. It is a module of its own, so that
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
// the first question to STS fails, it goes on to the metadata service and stays
// there for good, so that a pod signs with the role of its node. A source that is
// half configured is an error of New, for the same reason.
//
// # Renewal
//
// Sources that give session keys (OIDC, ECSRole, roles of profiles) are asked every
// two minutes, from memory, and fetch new keys three minutes before the old ones
// expire. Subscribers and publishers sign with the old ones while that fails. The
// service's refusal of a session does not make credentials-go fetch another one
// earlier. A profile file that changes is read again at the next question; static
// keys are asked for again when the service refuses them.
package credentials
