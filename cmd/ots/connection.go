package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Environment variables of the connection. Keys have no flags, because the list of
// processes shows flags to everyone on the machine.
const (
	envEndpoint = "OTS_ENDPOINT"
	envInstance = "OTS_INSTANCE"
	envRegion   = "OTS_REGION"
	envKeyID    = "OTS_ACCESS_KEY_ID"
	envSecret   = "OTS_ACCESS_KEY_SECRET"
	envToken    = "OTS_SECURITY_TOKEN"
)

// connection says how to reach an instance.
type connection struct {
	endpoint, instance, region string
	insecure                   bool
	credentials                ots.Credentials
}

// addFlags adds the connection's flags.
func (c *connection) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.endpoint, "endpoint", "", "`URL` of the instance, such as https://my-instance.cn-hangzhou.ots.aliyuncs.com (default $"+envEndpoint+")")
	f.StringVar(&c.instance, "instance", "", "`NAME` of the instance (default $"+envInstance+")")
	f.StringVar(&c.region, "region", "", "`REGION` of the instance, such as cn-hangzhou; requests are then signed with version 4 (default $"+envRegion+")")
	f.BoolVar(&c.insecure, "allow-insecure", false, "accept http:// endpoints that are not on this machine")
}

// complete reads what no flag has set from the environment. The error names what is missing.
func (c *connection) complete() error {
	var missing []string
	for _, setting := range []struct {
		value     *string
		env, flag string
	}{
		{&c.endpoint, envEndpoint, "--endpoint"},
		{&c.instance, envInstance, "--instance"},
		{&c.credentials.AccessKeyID, envKeyID, ""},
		{&c.credentials.AccessKeySecret, envSecret, ""},
	} {
		if *setting.value == "" {
			*setting.value = os.Getenv(setting.env)
		}
		switch {
		case *setting.value != "":
		case setting.flag != "":
			missing = append(missing, setting.flag+" (or the environment variable "+setting.env+")")
		default:
			missing = append(missing, "the environment variable "+setting.env)
		}
	}
	c.credentials.SecurityToken = os.Getenv(envToken)
	if c.region == "" {
		c.region = os.Getenv(envRegion)
	}
	if len(missing) > 0 {
		return usageError{fmt.Errorf("not set: %s", strings.Join(missing, ", "))}
	}
	return nil
}

// signature returns the version of signatures: 4 where there is a region.
func (c *connection) signature() ots.SignatureVersion {
	if c.region != "" {
		return ots.SignatureV4
	}
	return ots.SignatureV2
}

// Credentials implements ots.CredentialsProvider.
func (c *connection) Credentials(context.Context) (ots.Credentials, error) {
	if c.credentials.AccessKeyID == "" {
		return ots.Credentials{}, errors.New("there is no access key")
	}
	return c.credentials, nil
}
